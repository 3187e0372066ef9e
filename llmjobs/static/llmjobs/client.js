/**
 * The JavaScript client of llmjobs: submit LLM calls as jobs, follow them live, cancel them.
 * One ES module without dependencies, for browsers and for Node 20 or newer.
 *
 *     import { LLMJobs } from "./client.js";
 *     const llmjobs = new LLMJobs({ baseUrl: "https://jobs.example.com", apiKey: "llmj_…" });
 *     const job = await llmjobs.submit({ model: "gpt-4.1-mini", messages: [{ role: "user", content: "Hello" }] });
 *     for await (const event of llmjobs.stream(job.id)) {
 *       if (event.type === "reset") text = "";
 *       if (event.type === "delta") text += event.data.text;
 *       if (event.type === "done") console.log(event.data.status, event.data.usage, event.data.cost_usd);
 *     }
 *
 * Owns the HTTP calls, the two live transports (WebSocket; Server-Sent Events where there is none, or where it can't
 * get through) and reconnecting. Owns no display and no state of a job.
 *
 * Invariant: `stream` yields each event once, in the order of `seq`, however often the connection breaks.
 *
 * @typedef {"scheduled"|"queued"|"running"|"completed"|"failed"|"dead"|"cancelled"|"expired"} JobStatus
 * @typedef {{code: string, message: string, class: string, provider_status: number|null, attempt: number|null}} JobError
 * @typedef {{id: string, object: "job", status: JobStatus, client: string, model: string, priority: string,
 *   position: number|null, eta_s: number|null, blocked_by: string|null, attempt: number, output: any,
 *   output_text: string, usage: Object|null, cost_usd: number|null, error: JobError|null}} Job  and more: see /api/docs
 * @typedef {{model: string, messages?: Object[], input?: any, body?: Object, priority?: string|number,
 *   metadata?: Object<string, string>}} Submission  and more: see /api/docs
 * @typedef {{seq: number, type: "status"|"delta"|"reset"|"done", data: any, job?: string}} LiveEvent
 *   `status`: {status, attempt}; `delta`: {text}; `reset`: a new attempt starts over, drop the text; `done`: the job
 * @typedef {"connecting"|"live"|"reconnecting"} LiveState
 * @typedef {{signal?: AbortSignal, onState?: (state: LiveState) => void}} LiveOptions
 */

/** The states that a job does not leave by itself. */
export const TERMINAL = new Set(["completed", "failed", "dead", "cancelled", "expired"]);

const BACKOFF_FIRST_MS = 250;
const BACKOFF_MOST_MS = 10_000;
const SUBMIT_TRIES = 4; // about two seconds of an unreachable server
const WAIT_S = 30; // of one long poll; the server allows 60, proxies often less
const SILENCE_MS = 60_000; // a connection that is half open looks like a quiet one: after this it is replaced
const BUFFER_MAX = 10_000; // events that a slow reader may leave unread before its socket is closed, and resumed later
const CODE_OF_STATUS = { 400: "invalid_value", 403: "insufficient_scope", 404: "not_found", 429: "too_many_viewers" };

/** Whatever went wrong: the server's own words where it answered, `status` 0 where it could not be reached. */
export class LLMJobsError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, code?: string, type?: string|null, param?: string|null, retryAfter?: number|null,
   *   requestId?: string|null, cause?: unknown}} [details] `retryAfter` in seconds
   */
  constructor(message, { status = 0, code = "error", type = null, param = null, retryAfter = null, requestId = null, cause } = {}) {
    super(message, { cause });
    this.name = "LLMJobsError";
    Object.assign(this, { status, code, type, param, retryAfter, requestId });
  }

  /** True where the same call may well succeed in a moment: no answer, or the server is not ready. */
  get isTemporary() {
    return [0, 408, 429, 502, 503, 504].includes(this.status) || this.code === "idempotency_in_progress";
  }
}

export class LLMJobs {
  #baseUrl;
  #apiKey;
  #fetch;
  #WebSocket;
  #webSocketsWork = false; // one has opened

  /**
   * @param {{baseUrl?: string, apiKey?: string|null, fetch?: typeof fetch, WebSocket?: typeof WebSocket|null}} [options]
   *   Without `apiKey` (in a page of the same site) the session's cookie speaks for the user.
   *   `WebSocket: null` follows jobs by Server-Sent Events only.
   */
  constructor({ baseUrl = globalThis.location?.origin, apiKey = null, fetch = globalThis.fetch, WebSocket = globalThis.WebSocket } = {}) {
    if (!baseUrl) throw new TypeError("LLMJobs expected a baseUrl such as https://jobs.example.com, got none");
    this.#baseUrl = String(baseUrl).replace(/\/+$/, "");
    this.#apiKey = apiKey;
    this.#fetch = (...args) => fetch(...args);
    this.#WebSocket = WebSocket ?? null;
  }

  /**
   * Submits a job. Where no answer came it is sent again under the same idempotency key, so that it is never paid for twice.
   * @param {Submission} submission
   * @param {{idempotencyKey?: string, signal?: AbortSignal}} [options]
   * @returns {Promise<Job>}
   */
  async submit(submission, { idempotencyKey = randomKey(), signal } = {}) {
    const options = { method: "POST", body: submission, headers: { "Idempotency-Key": idempotencyKey }, signal };
    for (let tries = 1; ; tries++) {
      try {
        return await this.#json("/api/jobs", options);
      } catch (error) {
        const again = error instanceof LLMJobsError && error.isTemporary && error.status !== 429;
        if (!again || tries >= SUBMIT_TRIES) throw error;
        await pause(delayMs(tries, error.retryAfter), signal);
      }
    }
  }

  /** @param {string} id @param {{signal?: AbortSignal}} [options] @returns {Promise<Job>} */
  async get(id, options) {
    return (await this.poll(id, options)).job;
  }

  /**
   * `get` for those who ask again: `retryAfter` is in how many seconds the server wants that; with `waitS` the answer
   * comes as soon as the job is terminal, or after so many seconds.
   * @param {string} id
   * @param {{waitS?: number, signal?: AbortSignal}} [options]
   * @returns {Promise<{job: Job, retryAfter: number|null}>}
   */
  async poll(id, { waitS, signal } = {}) {
    const response = await this.#request(`${jobPath(id)}${query({ wait: waitS })}`, { signal });
    return { job: await jsonOf(response), retryAfter: secondsOf(response.headers.get("Retry-After")) };
  }

  /**
   * A page of the caller's jobs, newest first; `next` is the cursor of the page after it.
   * @param {{status?: JobStatus, model?: string, priority?: string, limit?: number, cursor?: string|null}} [filters]
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<{data: Job[], next: string|null}>}
   */
  async list(filters = {}, { signal } = {}) {
    return this.#json(`/api/jobs${query(filters)}`, { signal });
  }

  /** The models that the caller may use. @param {{signal?: AbortSignal}} [options] @returns {Promise<{data: Object[]}>} */
  async models({ signal } = {}) {
    return this.#json("/api/models", { signal });
  }

  /** Idempotent. A running job ends within about a second. @param {string} id @param {{signal?: AbortSignal}} [options] @returns {Promise<Job>} */
  async cancel(id, { signal } = {}) {
    return this.#json(`${jobPath(id)}/cancel`, { method: "POST", signal });
  }

  /**
   * The job once it is terminal, however it ended.
   * @param {string} id
   * @param {{timeoutS?: number, signal?: AbortSignal}} [options]
   * @returns {Promise<Job>} rejects with code `wait_timeout` after `timeoutS`; the job goes on
   */
  async wait(id, { timeoutS = Infinity, signal } = {}) {
    const deadline = performance.now() + timeoutS * 1000;
    for (let failures = 0; ; ) {
      const leftS = (deadline - performance.now()) / 1000;
      if (leftS <= 0) throw new LLMJobsError(`Job ${id} was not terminal within ${timeoutS} s`, { code: "wait_timeout" });
      let delay;
      try {
        const { job, retryAfter } = await this.poll(id, { waitS: Math.ceil(Math.min(WAIT_S, leftS)), signal });
        if (TERMINAL.has(job.status)) return job;
        failures = 0;
        delay = delayMs(1, retryAfter);
      } catch (error) {
        if (!(error instanceof LLMJobsError && error.isTemporary)) throw error;
        delay = delayMs(++failures, error.retryAfter);
      }
      await pause(Math.min(delay, Math.max(0, deadline - performance.now())), signal);
    }
  }

  /**
   * The events of a job from the first one (or after the event numbered `after`) to its end.
   * Rejects where the job is not the caller's (`status` 404) or access ended; a broken connection is taken up again.
   * @param {string} id
   * @param {LiveOptions & {after?: number}} [options]
   * @returns {AsyncGenerator<LiveEvent, void, void>}
   */
  async *stream(id, { after = 0, signal, onState } = {}) {
    let seq = after;
    const source = {
      webSocket: () => `/ws/jobs/${encodeURIComponent(id)}/?after=${seq}`,
      serverSentEvents: () => `${jobPath(id)}/events?after=${seq}`,
      eventOf: (fields) => ({ seq: Number(fields.id), type: fields.event, data: JSON.parse(fields.data) }),
      failures: 0,
      isOver: async () => TERMINAL.has((await this.get(id, { signal })).status),
    };
    for await (const event of this.#follow(source, { signal, onState })) {
      source.failures = 0;
      if (event.seq <= seq) continue;
      seq = event.seq;
      yield event;
      if (event.type === "done" && !event.data.superseded) return; // superseded: it was requeued since, and goes on
    }
  }

  /**
   * The events of all of the caller's jobs, from now on; each names its `job`. It has no end: break, or abort the signal.
   * What happened while the connection was away is not repeated: read the list again when `onState` says "live".
   * @param {LiveOptions} [options]
   * @returns {AsyncGenerator<LiveEvent, void, void>}
   */
  async *streamAll({ signal, onState } = {}) {
    const source = {
      webSocket: () => "/ws/jobs/",
      serverSentEvents: () => "/api/events",
      eventOf: (fields) => JSON.parse(fields.data),
      failures: 0,
      isOver: async () => false,
    };
    for await (const event of this.#follow(source, { signal, onState })) {
      source.failures = 0;
      yield event;
    }
  }

  /**
   * Connects, and connects again where that can help; `source.failures` counts since the last event. Server-Sent Events are
   * tried after a WebSocket that did not open, but only until one has: browsers allow a site six of them over all tabs.
   */
  async *#follow(source, { signal, onState = () => {} }) {
    onState("connecting");
    for (let isBlocked = false; ; ) {
      signal?.throwIfAborted();
      const useWebSocket = this.#WebSocket !== null && !isBlocked;
      let isOpen = false;
      let retryAfter = null;
      const opened = () => { isOpen = true; this.#webSocketsWork ||= useWebSocket; onState("live"); };
      try {
        const ending = yield* useWebSocket ? this.#overWebSocket(source, { signal, opened }) : this.#overEvents(source, { signal, opened });
        if (ending === "replace") {
          source.failures = 0;
          continue; // nothing is wrong, so nobody is told
        }
        if (await source.isOver()) return;
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof LLMJobsError && error.isTemporary)) throw error;
        retryAfter = error.retryAfter;
      }
      isBlocked = useWebSocket && !isOpen && !this.#webSocketsWork;
      onState("reconnecting");
      await pause(delayMs(++source.failures, retryAfter), signal);
    }
  }

  /** Ends with "closed" (by the server, at the end) or "replace" (silent, or full). Throws LLMJobsError for any other close. */
  async *#overWebSocket(source, { signal, opened }) {
    const url = (this.#baseUrl + source.webSocket()).replace(/^http/, "ws");
    const socket = this.#apiKey ? new this.#WebSocket(url, ["llmjobs", this.#apiKey]) : new this.#WebSocket(url);
    let arrived = [];
    let close = null;
    let wake = () => {};
    socket.onopen = opened;
    socket.onclose = (event) => { close = event; wake(); };
    socket.onmessage = (message) => {
      arrived.push(message.data);
      if (arrived.length >= BUFFER_MAX) { close = { code: "replace" }; socket.close(); socket.onmessage = null; }
      wake();
    };
    const stop = () => wake();
    signal?.addEventListener("abort", stop);
    try {
      for (;;) {
        signal?.throwIfAborted();
        const events = arrived;
        arrived = [];
        for (const text of events) yield JSON.parse(text);
        if (arrived.length) continue;
        if (close) return endingOf(close);
        const isSilent = await until((resolve) => { wake = resolve; }, SILENCE_MS);
        if (isSilent && !arrived.length && !close) return "replace";
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      socket.onclose = socket.onmessage = socket.onopen = null;
      socket.close();
    }
  }

  /** Ends with "closed" (the server's response is over) or "replace" (silent: not even a keep-alive came). */
  async *#overEvents(source, { signal, opened }) {
    const stopper = new AbortController();
    const stop = () => stopper.abort();
    signal?.addEventListener("abort", stop);
    try {
      const response = await this.#request(source.serverSentEvents(), { headers: { Accept: "text/event-stream" }, signal: stopper.signal });
      opened();
      if (response.status === 204) return "closed"; // all was seen before
      const body = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let unfinished = "";
      for (;;) {
        let chunk;
        const isSilent = await until((resolve, reject) => { body.read().then((c) => resolve(chunk = c), reject); }, SILENCE_MS);
        if (isSilent) return "replace";
        if (chunk.done) return "closed";
        const blocks = (unfinished + chunk.value).split(/\r?\n\r?\n/);
        unfinished = blocks.pop();
        for (const block of blocks) {
          const fields = fieldsOf(block);
          if (fields.data) yield source.eventOf(fields); // else it is a keep-alive
        }
      }
    } catch (error) {
      throw error instanceof LLMJobsError ? error : unreachable(error);
    } finally {
      signal?.removeEventListener("abort", stop);
      stop();
    }
  }

  async #json(path, options) {
    return jsonOf(await this.#request(path, options));
  }

  /** @returns {Promise<Response>} of a status below 400; anything else is thrown as LLMJobsError */
  async #request(path, { method = "GET", body, headers = {}, signal } = {}) {
    const all = { Accept: "application/json", ...headers };
    if (body !== undefined) all["Content-Type"] = "application/json";
    if (this.#apiKey) all.Authorization = `Bearer ${this.#apiKey}`;
    else if (method !== "GET") all["X-CSRFToken"] = csrfToken();
    let response;
    try {
      response = await this.#fetch(this.#baseUrl + path, {
        method, headers: all, signal, cache: "no-store",
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: this.#apiKey ? "omit" : "same-origin",
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw unreachable(error);
    }
    if (response.ok) return response;
    throw await errorOf(response);
  }
}

/** The server's own close codes are HTTP's statuses plus 4000, e.g. 4404: no such job, or not yours; 4408: you were too slow. */
function endingOf({ code, reason }) {
  if (code === 1000) return "closed";
  if (code === "replace") return "replace";
  const status = code >= 4400 && code <= 4599 ? code - 4000 : 0;
  const message = reason || `The live connection was closed (${code})`;
  throw new LLMJobsError(message, { status, code: CODE_OF_STATUS[status] ?? "connection_error" });
}

/** @param {string} block the lines of one server-sent event, or of a comment @returns {{id: string, event: string, data: string}} */
function fieldsOf(block) {
  const fields = { id: "", event: "", data: "" };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([a-z]+): ?(.*)$/s.exec(line) ?? [];
    if (name === "data" && fields.data) fields.data += `\n${value}`;
    else if (name in fields) fields[name] = value;
  }
  return fields;
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  let said = null;
  try {
    said = JSON.parse(text).error;
  } catch {
    // a proxy's page of HTML says nothing that a program could use
  }
  return new LLMJobsError(said?.message ?? `The server answered ${response.status} ${response.statusText}`.trim(), {
    status: response.status,
    code: said?.code ?? "http_error",
    type: said?.type ?? null,
    param: said?.param ?? null,
    retryAfter: secondsOf(response.headers.get("Retry-After")),
    requestId: response.headers.get("x-request-id"),
  });
}

/** @param {Response} response */
function jsonOf(response) {
  return response.json().catch((error) => { throw unreachable(error); });
}

function unreachable(cause) {
  return new LLMJobsError("The server could not be reached", { code: "connection_error", cause });
}

/** @param {string|null} header seconds, or an HTTP date */
function secondsOf(header) {
  if (!header) return null;
  const seconds = Number.isNaN(Number(header)) ? (Date.parse(header) - Date.now()) / 1000 : Number(header);
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/** Exponential, between half and all of it, so that the viewers of a server that restarts don't return as one. */
function delayMs(failures, retryAfterS) {
  const whole = Math.min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** (failures - 1));
  return Math.max(whole * (0.5 + Math.random() / 2), (retryAfterS ?? 0) * 1000);
}

/** Waits `ms`; rejects with the signal's reason as soon as it is aborted. */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** True if `ms` passed before `start` called its resolve. */
function until(start, ms) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(true), ms);
    start(() => { clearTimeout(timer); resolve(false); }, (error) => { clearTimeout(timer); reject(error); });
  });
}

function jobPath(id) {
  return `/api/jobs/${encodeURIComponent(id)}`;
}

function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** 128 random bits; crypto.randomUUID is missing in pages served by plain HTTP. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function csrfToken() {
  return /(?:^|;\s*)csrftoken=([^;]*)/.exec(globalThis.document?.cookie ?? "")?.[1] ?? "";
}
