/**
 * The open job: its status and place, what it was asked, the text as it arrives.
 *
 * Owns the card `#job`. What a model wrote gets there as text nodes only. Does not own which job is open (the address
 * says so, and app.js calls `open`), the figures (job_facts.js), nor what can be done with it (job_actions.js).
 */

import { TERMINAL } from "./client.js";
import * as display from "./display.js";
import { byId, setHidden } from "./dom.js";
import { clearFacts, renderFacts, renderProblem } from "./job_facts.js";
import { createOutput } from "./output.js";
import { createTurns } from "./turns_view.js";

const POLL_MS = 2000; // the place in the queue, while waiting; a Retry-After makes it longer
const BURST_MS = 150; // status events come in bursts: one read of the job for all of them
const CLOCK_MS = 1000;
const NONE = { id: null, job: null, asked: null, isOver: false }; // what `onChange` tells where no job is open

/**
 * What is shown of one job. It is replaced as a whole when another is opened, so that what still arrives for this one
 * finds `current !== shown` and is dropped.
 * @typedef {{id: string, job: import("./client.js").Job|null, asked: import("./asked.js").Asked|null, seq: number,
 *   wasLive: boolean, isOver: boolean, isRefused: boolean, cancelAsked: boolean, stopper: AbortController}} Shown
 *   `wasLive`: seen before its end; `isOver`: its last event came; `isRefused`: it is not there, or not for this user
 */

/**
 * @param {{llmjobs: import("./client.js").LLMJobs, onState: (state: string) => void,
 *   isSessionEnd: (error: Error) => boolean, onChange: (shown: Shown, answer: string) => void}} page
 *   `onChange`: the job's state, or what is known of what it was asked, is another
 */
export function createJobView({ llmjobs, onState, isSessionEnd, onChange }) {
  const card = Object.fromEntries(
    [...byId("job").querySelectorAll("[id^=job-]")].map((element) => [element.id.slice("job-".length), element]),
  );
  const output = createOutput(card.output, card.thread);
  const turns = createTurns({ llmjobs, card, atEnd: output.atEnd });
  /** @type {Shown|null} */
  let current = null;
  let burst = 0;

  function open(id, job = null) {
    if (current?.id !== id) show({ id, job, asked: null, seq: 0 });
  }

  /** An operator requeued it after its end: its stream had ended, and is taken up where it was. */
  function reopen(id) {
    if (current?.id === id && current.isOver) show({ ...current });
  }

  function show({ id, job, asked, seq }) {
    current?.stopper.abort();
    current = { id, job, asked, seq, wasLive: isAlive(job), isOver: false, isRefused: false, cancelAsked: false, stopper: new AbortController() };
    if (!seq) { output.clear(); turns.clear(); }
    if (!job) clearFacts(card);
    setHidden(card.empty, true);
    setHidden(card.body, false);
    render();
    start(current);
  }

  /** No job is open, as before the first one was. */
  function close() {
    if (!current) return;
    current.stopper.abort();
    current = null;
    clearFacts(card);
    setHidden(card.body, true);
    setHidden(card.empty, false);
    onState("live"); // nothing is followed
    onChange(NONE, "");
  }

  /** What is over is read, and not followed: who leafs through the list opens no connection for each job. */
  async function start(shown) {
    pollPlace(shown);
    onState("live"); // what was followed before is not any more
    if (shown.wasLive) read(shown);
    else await read(shown);
    if (current !== shown || shown.isOver || shown.isRefused) return;
    if (shown.job && !isAlive(shown.job)) finish(shown, shown.job);
    else follow(shown);
  }

  async function follow(shown) {
    const { signal } = shown.stopper;
    try {
      for await (const event of llmjobs.stream(shown.id, { after: shown.seq, signal, onState })) {
        shown.seq = event.seq;
        apply(shown, event);
      }
      if (!shown.isOver) await read(shown);
      if (current === shown && !shown.isOver && TERMINAL.has(shown.job?.status)) finish(shown, shown.job); // its log is gone
    } catch (error) {
      // A WebSocket calls everybody it does not know a stranger to the job; HTTP says whether the session has ended.
      const reason = await llmjobs.get(shown.id, { signal }).then(() => error, (better) => better);
      if (!signal.aborted) showError(shown, reason);
    } finally {
      if (current === shown) onState("live"); // nothing of this job is awaited any more
    }
  }

  function apply(shown, { type, data }) {
    if (type === "delta") return output.append(data.text);
    if (type === "reset") output.clear();
    if (type === "status") {
      if (isAlive(shown.job)) Object.assign(shown.job, data); // else the log is telling how it came to its end
      readSoon(shown);
    }
    if (type === "done" && !data.superseded) finish(shown, data);
    else render();
  }

  /** The log may be gone (pruned) or without text (embeddings); the job's own text is what counts. */
  function finish(shown, job) {
    shown.isOver = true;
    shown.job = job.created_at ? job : { ...shown.job, ...job };
    if (job.output_text) output.set(job.output_text);
    output.finish();
    render();
    if (!shown.wasLive) turns.showLast(); // what is complete is read from its beginning
    loadTurns(shown);
  }

  function readSoon(shown) {
    clearTimeout(burst);
    burst = setTimeout(() => read(shown), BURST_MS);
  }

  /** @returns {Promise<number|null>} the seconds after which the server wants to be asked again, if it said so */
  async function read(shown) {
    try {
      const { job, retryAfter } = await llmjobs.poll(shown.id, { signal: shown.stopper.signal });
      if (current !== shown) return null;
      loadTurns(shown, job);
      if (shown.isOver) return null; // `done` brought a newer one
      shown.job = job;
      shown.wasLive ||= isAlive(job);
      render();
      return retryAfter;
    } catch (error) {
      if (!shown.stopper.signal.aborted && !error.isTemporary) showError(shown, error);
      return error.retryAfter ?? null;
    }
  }

  async function loadTurns(shown, job = shown.job) {
    const asked = await turns.load(shown.id, job, shown.stopper.signal);
    if (current !== shown || !asked || shown.asked) return;
    shown.asked = asked;
    if (shown.isOver && !shown.wasLive) turns.showLast();
    render();
  }

  async function pollPlace(shown) {
    let waitMs = POLL_MS;
    while (current === shown && !shown.isOver && !shown.isRefused) {
      await new Promise((resolve) => { setTimeout(resolve, waitMs); });
      if (shown.isRefused) return;
      const isWaiting = shown.job === null || ["queued", "scheduled"].includes(shown.job.status);
      if (current !== shown || shown.isOver || !isWaiting || document.hidden) continue;
      waitMs = Math.max(POLL_MS, ((await read(shown)) ?? 0) * 1000);
    }
  }

  function render() {
    const { job } = current;
    const isTerminal = TERMINAL.has(job?.status);
    card.output.setAttribute("aria-busy", String(Boolean(job) && !isTerminal));
    card.output.dataset.placeholder = isTerminal ? "No text." : "Nothing yet.";
    renderFacts(card, current);
    onChange(current, output.value());
  }

  function showError(shown, error) {
    if (current !== shown || isSessionEnd(error)) return;
    const message = error.status === 404 ? "There is no such job, or it is not yours." : display.callError(error);
    renderProblem(card, { code: error.code ?? error.name, message });
    shown.isRefused = !shown.job;
    if (!shown.job) setHidden(card.status, true);
  }

  /** What an action learned of the job: `changes` are merged into what is shown. */
  function update(shown, changes) {
    if (shown.isOver && changes.job) changes = { ...changes, job: shown.job };
    Object.assign(shown, changes);
    if (current === shown) render();
  }

  /** Its request and its text are gone for good. */
  function forget(id) {
    if (current?.id === id) show({ id, job: null, asked: null, seq: 0 });
  }

  setInterval(() => {
    if (current?.job && !current.isOver && !document.hidden) renderFacts(card, current);
  }, CLOCK_MS);

  return { open, close, reopen, update, forget, showError, shown: () => current, text: () => output.value() };
}

function isAlive(job) {
  return job !== null && !TERMINAL.has(job.status);
}
