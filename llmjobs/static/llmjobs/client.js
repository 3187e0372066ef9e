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
 * Owns the HTTP calls, the line in which submits wait while the server has no room (429) or can't be reached, the two live
 * transports (WebSocket; Server-Sent Events where there is none, or where it can't get through) and reconnecting. Owns no
 * display and no state of a job. Its types stand in client.d.ts beside it, for TypeScript and for editors.
 *
 * Invariants: `stream` yields each event once, in the order of `seq`, however often the connection breaks. A submit makes
 * one job, however often it is sent; and the server gets submits in the order of their priority, then of the calls.
 *
 * @typedef {import("./client.d.ts").Job} Job
 * @typedef {import("./client.d.ts").JobStatus} JobStatus
 * @typedef {import("./client.d.ts").Submission} Submission
 * @typedef {import("./client.d.ts").SubmitOptions} SubmitOptions
 * @typedef {import("./client.d.ts").WaitState} WaitState
 * @typedef {import("./client.d.ts").JobEvent} JobEvent
 * @typedef {import("./client.d.ts").FeedEvent} FeedEvent
 * @typedef {import("./client.d.ts").LiveOptions} LiveOptions
 */

/** The states that a job does not leave by itself. */
export const TERMINAL = new Set(["completed", "failed", "dead", "cancelled", "expired"]);

const URGENCY = { critical: 0, high: 1, normal: 5, low: 8, background: 10 };
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MOST_MS = 10_000;
const CLOSED_MOST_MS = 3_600_000; // whatever Retry-After says, the server is asked again after an hour
const JITTER = 0.25; // upward only, of a Retry-After: several programs that were told the same shall not return as one
const TELL_MS = 50; // who waits is told of what has changed so often: each submit that is taken moves up all others
const WAIT_S = 30; // of one long poll; the server allows 60, proxies often less
const LAST_MS = 5_000; // of the last one of a `wait`: its answer may come so late, and a server that says nothing is left
const MANY_LINES = 1_000; // of one bulk request; the server takes 10,000
const MANY_CHARS = 4_000_000;
const BUFFER_MAX = 10_000; // events that a slow reader may leave unread before its socket is closed, and resumed later
const CODE_OF_STATUS = { 400: "invalid_value", 403: "insufficient_scope", 404: "not_found", 429: "too_many_viewers" };

/** Whatever went wrong: the server's own words where it answered, `status` 0 where it could not be reached. */
export class LLMJobsError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, code?: string, type?: string|null, param?: string|null, retryAfter?: number|null,
   *   shouldRetry?: boolean, requestId?: string|null, idempotencyKey?: string|null, cause?: unknown}} [details]
   *   `retryAfter` in seconds; `idempotencyKey`: of a submit, to send it again without a second job
   */
  constructor(message, { status = 0, code = "error", type = null, param = null, retryAfter = null, shouldRetry = true, requestId = null, idempotencyKey = null, cause } = {}) {
    super(message, { cause });
    this.name = "LLMJobsError";
    Object.assign(this, { status, code, type, param, retryAfter, shouldRetry, requestId, idempotencyKey });
  }

  /** True where the same call may well succeed in a moment: no answer, or the server is not ready. */
  get isTemporary() {
    if (!this.shouldRetry) return false; // a budget that is spent is a 429, too
    return [0, 408, 429, 502, 503, 504].includes(this.status) || this.code === "idempotency_in_progress";
  }
}

export class LLMJobs {
  #baseUrl;
  #apiKey;
  #client;
  #fetch;
  #WebSocket;
  #timeoutMs;
  #silenceMs;
  #line;
  #webSocketsWork = false; // one has opened

  /** @param {import("./client.d.ts").LLMJobsOptions} [options] each is told of in client.d.ts */
  constructor({
    baseUrl = globalThis.location?.origin, apiKey = null, client = null, fetch = globalThis.fetch, WebSocket = globalThis.WebSocket,
    queueMax = 1_000, concurrency = 1, patienceS = 15, timeoutS = 30, silenceS = 60,
  } = {}) {
    if (!baseUrl) throw new TypeError("LLMJobs expected a baseUrl such as https://jobs.example.com, got none");
    this.#baseUrl = String(baseUrl).replace(/\/+$/, "");
    this.#apiKey = apiKey;
    this.#client = client;
    this.#fetch = (...args) => fetch(...args);
    this.#WebSocket = WebSocket ?? null;
    this.#timeoutMs = expectNumber("timeoutS", timeoutS, 0.001) * 1000;
    this.#silenceMs = expectNumber("silenceS", silenceS, 0.001) * 1000;
    this.#line = new Line({
      most: expectNumber("queueMax", queueMax, 0),
      concurrency: expectNumber("concurrency", concurrency, 1),
      patienceMs: expectNumber("patienceS", patienceS, 0) * 1000,
    });
  }

  /** What waits to be sent by this object: how many submits, until when nothing is sent, and why. */
  get waiting() {
    return this.#line.state;
  }

  /**
   * Submits a job. While the server says 429 with a Retry-After (a full queue, a rate limit), or can't be reached, it waits
   * in this object's line, where the more urgent goes first. It is sent under one idempotency key, however often: it is
   * never paid for twice. Rejects with code `client_queue_full` where `queueMax` wait already; with `connection_error`
   * after `patienceS` without an answer: then the error's `idempotencyKey` finds the job, if there is one.
   * @param {Submission} submission
   * @param {SubmitOptions} [options]
   * @returns {Promise<Job>}
   */
  async submit(submission, { idempotencyKey = randomKey(), signal, onWait } = {}) {
    return this.#line.add({
      urgency: urgencyOf(submission), idempotencyKey, signal, onWait,
      call: this.#calling("/api/jobs", JSON.stringify(submission), { "Idempotency-Key": idempotencyKey }, signal),
    });
  }

  /**
   * Submits many by few requests: what became of each, in order, with `error` where it is no job. One that is refused does
   * not hold up the others; what the server has no room for waits in the line, which counts a request of many as one.
   * Rejects where nothing could be submitted at all.
   * @param {Submission[]} submissions
   * @param {import("./client.d.ts").SubmitManyOptions} [options]
   * @returns {Promise<import("./client.d.ts").Submitted[]>}
   */
  async submitMany(submissions, { idempotencyKeys = submissions.map(randomKey), signal, onWait, onProgress = () => {} } = {}) {
    const total = submissions.length;
    if (idempotencyKeys.length !== total) {
      throw new TypeError(`LLMJobs expected ${total} idempotencyKeys, one for each submission, got ${idempotencyKeys.length}`);
    }
    const results = new Array(total).fill(null);
    const lines = submissions.map((each, index) => (
      { index, urgency: urgencyOf(each), text: JSON.stringify({ ...each, idempotency_key: idempotencyKeys[index] }) }
    ));
    for (const part of partsOf(lines)) {
      try {
        const urgency = Math.max(...part.map((line) => line.urgency)); // as the least urgent of them: it passes nobody
        await this.#line.add({ urgency, idempotencyKey: null, signal, onWait, call: this.#callingMany(part, results, signal) });
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof LLMJobsError) || results.every((each) => each === null)) throw error;
        return results.map((each, index) => each ?? notSubmitted(again(error, idempotencyKeys[index])));
      }
      onProgress({ done: part.at(-1).index + 1, total });
    }
    return results;
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
    return this.#poll(id, { waitS, signal, lateMs: this.#timeoutMs });
  }

  /**
   * A page of the caller's jobs, newest first; `next` is the cursor of the page after it.
   * @param {import("./client.d.ts").JobFilters} [filters]
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<import("./client.d.ts").JobList>}
   */
  async list(filters = {}, { signal } = {}) {
    return this.json(`/api/jobs${query(filters)}`, { signal });
  }

  /** The models that the caller may use. @param {{signal?: AbortSignal}} [options] @returns {Promise<{data: Object[]}>} */
  async models({ signal } = {}) {
    return this.json("/api/models", { signal });
  }

  /** Idempotent. A running job ends within about a second. @param {string} id @param {{signal?: AbortSignal}} [options] @returns {Promise<Job>} */
  async cancel(id, { signal } = {}) {
    return this.json(`${jobPath(id)}/cancel`, { method: "POST", signal });
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
        const lateMs = leftS > WAIT_S ? this.#timeoutMs : Math.min(this.#timeoutMs, LAST_MS);
        const { job, retryAfter } = await this.#poll(id, { waitS: Math.min(WAIT_S, leftS), signal, lateMs });
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
   * @returns {AsyncGenerator<JobEvent, void, void>}
   */
  async *stream(id, { after = 0, signal, onState } = {}) {
    let seq = after;
    let askedAfter; // of the present connection
    let hadEnded = false; // before that was opened, so that it would have brought what was left
    const position = () => (askedAfter = seq);
    const source = {
      webSocket: () => `/ws/jobs/${encodeURIComponent(id)}/?after=${position()}`,
      serverSentEvents: () => `${jobPath(id)}/events?after=${position()}`,
      eventOf: (fields) => ({ seq: Number(fields.id), type: fields.event, data: JSON.parse(fields.data) }),
      failures: 0,
      // A server or a proxy may close at any event: nothing more comes where a job that had ended brought nothing at all.
      isOver: async () => {
        if (hadEnded && seq === askedAfter) return true;
        hadEnded = TERMINAL.has((await this.get(id, { signal })).status);
        return false;
      },
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
   * @returns {AsyncGenerator<FeedEvent, void, void>}
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
   * Any other call of the API: what it answered, `null` where it answers nothing (204). `body` is sent as JSON.
   * @param {string} path such as "/api/usage?month=2026-11"
   * @param {{method?: string, body?: any, headers?: Object<string, string>, signal?: AbortSignal}} [options]
   * @returns {Promise<any>}
   */
  async json(path, { method, body, headers, signal } = {}) {
    return this.#request(path, { method, text: body === undefined ? undefined : JSON.stringify(body), headers, signal });
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
    let isOpen = false;
    socket.onopen = () => { isOpen = true; opened(); wake(); };
    socket.onclose = (event) => { close = event; wake(); };
    socket.onerror = () => {}; // a close follows. Stays: where none listens, Node's `ws` ends the program
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
        for (const text of events) {
          signal?.throwIfAborted();
          yield JSON.parse(text);
        }
        if (arrived.length) continue;
        if (close) return endingOf(close);
        const isSilent = await until((resolve) => { wake = resolve; }, isOpen ? this.#silenceMs : this.#timeoutMs);
        if (!isSilent || arrived.length || close) continue;
        if (isOpen) return "replace";
        throw unreachable(new Error("The WebSocket did not open"));
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
      const options = { headers: { Accept: "text/event-stream" }, stopper };
      const response = await this.#request(source.serverSentEvents(), options, (each) => each);
      opened();
      if (response.status === 204) return "closed"; // all was seen before
      const body = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let unfinished = "";
      for (;;) {
        let chunk;
        const isSilent = await until((resolve, reject) => { body.read().then((c) => resolve(chunk = c), reject); }, this.#silenceMs);
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

  /** `lateMs`: for how long the answer may be missing once the server should have given it. */
  #poll(id, { waitS, signal, lateMs }) {
    const timeoutMs = (waitS ?? 0) * 1000 + lateMs;
    return this.#request(`${jobPath(id)}${query({ wait: waitS })}`, { signal, timeoutMs }, async (response) => (
      { job: await response.json(), retryAfter: retryAfterOf(response) }
    ));
  }

  /** A function that sends `text` to `path`, for the line: as often as it takes. */
  #calling(path, text, headers, signal) {
    return () => this.#request(path, { method: "POST", text, headers, signal });
  }

  /** Sends those of `lines` that have no result yet, and throws for those that have none then: they are to be sent again. */
  #callingMany(lines, results, signal) {
    return async () => {
      const left = lines.filter(({ index }) => results[index] === null);
      const text = left.map((line) => line.text).join("\n");
      const headers = { "Content-Type": "application/jsonl", Accept: "application/jsonl" };
      const answers = await this.#request("/api/jobs/bulk", { method: "POST", text, headers, signal }, linesOf);
      let postponed = answers.length < left.length ? unreachable(new Error(`${answers.length} of ${left.length} lines were answered`)) : null;
      for (const { line, id, status, idempotent_replayed: isReplayed = false, ...answer } of answers) {
        const error = answer.error ? errorOfLine(answer) : null;
        if (error && this.#line.takesBack(error)) postponed ??= error;
        else results[left[line - 1].index] = error ? notSubmitted(error) : { id, status, isReplayed, error };
      }
      if (postponed) throw postponed;
    };
  }

  /**
   * What `read` makes of an answer below 400, within `timeoutMs`; any other end is thrown as LLMJobsError, but an abort.
   * `stopper` ends the connection, also after this has returned.
   */
  async #request(path, { method = "GET", text, headers = {}, signal, stopper = new AbortController(), timeoutMs = this.#timeoutMs } = {}, read = jsonOf) {
    const stop = () => stopper.abort(signal.reason);
    signal?.throwIfAborted();
    signal?.addEventListener("abort", stop);
    let isLate = false;
    const timer = setTimeout(() => { isLate = true; stopper.abort(); }, Math.min(timeoutMs, CLOSED_MOST_MS));
    try {
      const response = await this.#fetch(this.#baseUrl + path, {
        method, headers: this.#headers(method, text, headers), body: text, signal: stopper.signal, cache: "no-store",
        credentials: this.#apiKey ? "omit" : "same-origin",
      });
      if (!response.ok) throw await errorOf(response);
      return await read(response);
    } catch (error) {
      signal?.throwIfAborted();
      if (isLate) throw unreachable(error, `The server did not answer within ${timeoutMs / 1000} s`);
      throw error instanceof LLMJobsError ? error : unreachable(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
  }

  #headers(method, text, given) {
    const all = { Accept: "application/json" };
    if (text !== undefined) all["Content-Type"] = "application/json";
    if (this.#client) all["LLMJobs-Client"] = this.#client;
    if (this.#apiKey) all.Authorization = `Bearer ${this.#apiKey}`;
    else if (method !== "GET") all["X-CSRFToken"] = csrfToken();
    return { ...all, ...given };
  }
}

/**
 * The line of submits that are to be sent: the more urgent first, then in the order of the calls.
 *
 * It is *closed* until a moment where the server said that it has no room, or did not answer; then one is sent alone, and
 * the rest follow once that one was answered. What is sent and refused for now goes back to its place.
 */
class Line {
  #most;
  #concurrency;
  #patienceMs;
  #waiting = []; // {urgency, order, call, resolve, reject, …}, as they will be sent
  #sending = 0;
  #order = 0;
  #opensAt = 0; // of performance.now()
  #until = null; // the same as a Date, for people
  #reason = null; // the code of what closed it
  #closings = 0;
  #failures = 0; // without an answer, in a row
  #awaySince = null; // the first of these
  #timer = null;
  #teller = null;
  #signals = new Map(); // of entries that are not settled: {count, leave}; one listener each, however many share it
  #isPumpDue = false;

  /** `most` that wait, 0: none does, and all is sent at once; `concurrency`: how many are sent at a time. */
  constructor({ most, concurrency, patienceMs }) {
    this.#most = most;
    this.#concurrency = most === 0 ? Infinity : concurrency;
    this.#patienceMs = patienceMs;
  }

  get state() {
    const until = this.#opensAt > performance.now() ? this.#until : null;
    return { count: this.#waiting.length, until, reason: this.#reason };
  }

  /** Whether what ended so waits to be sent again. A 429 that does not say when is not for waiting. */
  takesBack(error) {
    if (error.status === 429) return error.shouldRetry && error.retryAfter !== null && this.#most > 0;
    return error.isTemporary;
  }

  /** @returns {Promise<any>} of what `entry.call` returns in the end */
  add(entry) {
    return new Promise((resolve, reject) => {
      const { signal } = entry;
      signal?.throwIfAborted();
      if (this.#most > 0 && this.#waiting.length >= this.#most) throw this.#full();
      const settled = (settle) => (value) => { this.#forget(signal); settle(value); };
      Object.assign(entry, { order: this.#order++, madeAt: performance.now(), resolve: settled(resolve), reject: settled(reject) });
      this.#heed(signal);
      this.#insert(entry);
      this.#pumpSoon();
    });
  }

  /** After the caller's present loop: what is submitted in one go is sorted before the first is sent. */
  #pumpSoon() {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    queueMicrotask(() => { this.#isPumpDue = false; this.#pump(); });
  }

  #pump() {
    clearTimeout(this.#timer);
    const leftMs = this.#opensAt - performance.now();
    const most = this.#reason === null ? this.#concurrency : 1; // closed before: one finds out
    if (leftMs > 0) this.#timer = setTimeout(() => this.#pump(), leftMs);
    else while (this.#waiting.length && this.#sending < most) this.#send(this.#waiting.shift());
    if (this.#waiting.some((entry) => entry.onWait)) this.#teller ??= setTimeout(() => { this.#teller = null; this.#tell(); }, TELL_MS);
  }

  async #send(entry) {
    this.#sending++;
    const closings = this.#closings;
    try {
      const job = await entry.call();
      this.#answered(closings);
      entry.resolve(job);
    } catch (error) {
      this.#failed(entry, error, closings);
    }
    this.#sending--;
    this.#pump();
  }

  /** An answer to what was sent before the line closed says nothing of now. */
  #answered(closings) {
    if (closings !== this.#closings) return;
    this.#reason = this.#awaySince = null;
    this.#failures = 0;
  }

  #failed(entry, error, closings) {
    if (!(error instanceof LLMJobsError)) return entry.reject(error); // aborted
    error.idempotencyKey = entry.idempotencyKey;
    if (!this.takesBack(error)) {
      this.#answered(closings);
      entry.reject(error);
    } else if (error.status === 429) {
      this.#answered(closings);
      this.#close(Math.max(error.retryAfter * 1000, BACKOFF_FIRST_MS) * (1 + Math.random() * JITTER), error);
      this.#insert(entry);
    } else {
      this.#awaySince ??= performance.now();
      if (closings === this.#closings) this.#failures++; // several that were under way together are one failure
      this.#close(delayMs(this.#failures, error.retryAfter), error);
      this.#insert(entry);
      this.#loseThePatient(error);
    }
  }

  #close(ms, { code }) {
    const opensAt = performance.now() + Math.min(ms, CLOSED_MOST_MS);
    if (opensAt > this.#opensAt) {
      this.#opensAt = opensAt;
      this.#until = new Date(Math.ceil(Date.now() + opensAt - performance.now()));
    }
    this.#reason = code;
    this.#closings++;
  }

  /** Those that waited `patienceMs` of this outage: one error for all, since all waited for the same. */
  #loseThePatient(error) {
    const now = performance.now();
    const isLost = (entry) => now - Math.max(entry.madeAt, this.#awaySince) >= this.#patienceMs;
    const lost = this.#waiting.filter(isLost);
    this.#waiting = this.#waiting.filter((entry) => !isLost(entry));
    for (const entry of lost) entry.reject(again(error, entry.idempotencyKey));
  }

  #insert(entry) {
    if (entry.signal?.aborted) return entry.reject(entry.signal.reason);
    let place = this.#waiting.length;
    while (place > 0 && goesBefore(entry, this.#waiting[place - 1])) place--;
    this.#waiting.splice(place, 0, entry);
  }

  #heed(signal) {
    if (!signal) return;
    const heeded = this.#signals.get(signal) ?? { count: 0, leave: () => this.#leave(signal) };
    if (heeded.count++ === 0) {
      this.#signals.set(signal, heeded);
      signal.addEventListener("abort", heeded.leave);
    }
  }

  #forget(signal) {
    const heeded = this.#signals.get(signal);
    if (!heeded || --heeded.count > 0) return;
    this.#signals.delete(signal);
    signal.removeEventListener("abort", heeded.leave);
  }

  /** All that wait with this signal, which was aborted. One that is under way ends by its request's own listener. */
  #leave(signal) {
    const left = this.#waiting.filter((entry) => entry.signal === signal);
    this.#waiting = this.#waiting.filter((entry) => entry.signal !== signal);
    for (const entry of left) entry.reject(signal.reason);
    this.#pump();
  }

  /** Those that asked, where something has changed for them. What a listener throws ends its own submit. */
  #tell() {
    const { until, reason } = this.state;
    for (const [place, entry] of [...this.#waiting.entries()].filter(([, each]) => each.onWait)) {
      const before = place + this.#sending;
      const told = `${before} ${until?.getTime()} ${reason}`;
      if (told === entry.told) continue;
      entry.told = told;
      try {
        entry.onWait({ before, until, reason });
      } catch (error) {
        this.#waiting = this.#waiting.filter((each) => each !== entry);
        entry.reject(error);
      }
    }
  }

  #full() {
    const { until } = this.state;
    return new LLMJobsError(`${this.#most} submits wait in this program already: await some of them before the next`, {
      code: "client_queue_full", retryAfter: until && Math.max(0, (until - Date.now()) / 1000),
    });
  }
}

function goesBefore(one, other) {
  return one.urgency < other.urgency || (one.urgency === other.urgency && one.order < other.order);
}

/** Of what the server will refuse it does not matter when it is sent. */
function urgencyOf(submission) {
  const { priority } = submission ?? {};
  return (typeof priority === "number" ? priority : URGENCY[priority]) ?? URGENCY.normal;
}

function expectNumber(name, value, least) {
  if (typeof value === "number" && value >= least) return value; // not NaN
  throw new TypeError(`LLMJobs expected ${name} to be a number of at least ${least}, got ${value}`);
}

/** In parts that a request may hold, in order. */
function* partsOf(lines) {
  let part = [];
  let chars = 0;
  for (const line of lines) {
    if (part.length && (part.length >= MANY_LINES || chars + line.text.length > MANY_CHARS)) {
      yield part;
      part = [];
      chars = 0;
    }
    part.push(line);
    chars += line.text.length;
  }
  if (part.length) yield part;
}

/** Of an answer of JSON Lines: what stands in each that came whole. */
async function linesOf(response) {
  const text = await response.text();
  return text.slice(0, text.lastIndexOf("\n") + 1).split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

function errorOfLine({ error, http_status: status, retry_after_s: retryAfter = null }) {
  const { message, code, type, param } = error;
  return new LLMJobsError(message, { status, code, type, param, retryAfter, shouldRetry: status !== 429 || retryAfter !== null });
}

function notSubmitted(error) {
  return { id: null, status: null, isReplayed: false, error };
}

/** The same failure, told of another submit. */
function again(error, idempotencyKey) {
  const { status, code, type, param, retryAfter, shouldRetry, requestId, cause } = error;
  return new LLMJobsError(error.message, { status, code, type, param, retryAfter, shouldRetry, requestId, idempotencyKey, cause });
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
    retryAfter: retryAfterOf(response),
    shouldRetry: response.headers.get("x-should-retry") !== "false",
    requestId: response.headers.get("x-request-id"),
  });
}

/** @param {Response} response */
function jsonOf(response) {
  return response.status === 204 ? null : response.json();
}

function unreachable(cause, message = "The server could not be reached") {
  return new LLMJobsError(message, { code: "connection_error", cause });
}

/**
 * In seconds: a Retry-After is a number of these, or an HTTP date, which counts by the clock of who said it.
 * @param {Response} response
 */
function retryAfterOf({ headers }) {
  const header = headers.get("Retry-After");
  if (!header) return null;
  const now = Date.parse(headers.get("Date") ?? "") || Date.now();
  const seconds = Number.isNaN(Number(header)) ? (Date.parse(header) - now) / 1000 : Number(header);
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
