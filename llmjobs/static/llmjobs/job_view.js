/**
 * The open job: its status and place, the text as it arrives, what it used, Cancel and Copy.
 *
 * Owns the card `#job`. What a model wrote gets there as text nodes only. Does not own which job is open: the address
 * says so, and app.js calls `open`.
 */

import { TERMINAL } from "./client.js";
import * as display from "./display.js";
import { byId, setHidden, setStatus, setText } from "./dom.js";

const POLL_MS = 2000; // the place in the queue, while waiting; a Retry-After makes it longer
const BURST_MS = 150; // status events come in bursts: one read of the job for all of them
const CLOCK_MS = 1000;
const COPIED_MS = 2000;
const NEAR_END_PX = 40; // a reader so close to the end wants to stay there

/**
 * What is shown of one job. It is replaced as a whole when another is opened, so that what still arrives for this one
 * finds `current !== shown` and is dropped.
 * @typedef {{id: string, job: import("./client.js").Job|null, seq: number, wasLive: boolean, isOver: boolean,
 *   cancelAsked: boolean, stopper: AbortController}} Shown  `wasLive`: seen before its end; `isOver`: its last event came
 */

/**
 * @param {{llmjobs: import("./client.js").LLMJobs, onState: (state: string) => void,
 *   isSessionEnd: (error: Error) => boolean}} page
 */
export function createJobView({ llmjobs, onState, isSessionEnd }) {
  const card = Object.fromEntries(
    [...byId("job").querySelectorAll("[id^=job-]")].map((element) => [element.id.slice("job-".length), element]),
  );
  /** @type {Shown|null} */
  let current = null;
  let burst = 0;

  function open(id, job = null) {
    if (current?.id !== id) show({ id, job, seq: 0 });
  }

  /** An operator requeued it after its end: its stream had ended, and is taken up where it was. */
  function reopen(id) {
    if (current?.id === id && current.isOver) show({ ...current });
  }

  function show({ id, job, seq }) {
    current?.stopper.abort();
    current = { id, job, seq, wasLive: isAlive(job), isOver: false, cancelAsked: false, stopper: new AbortController() };
    if (!seq) card.output.replaceChildren();
    setHidden(card.empty, true);
    setHidden(card.body, false);
    render();
    read(current);
    follow(current);
    pollPlace(current);
  }

  async function follow(shown) {
    const { signal } = shown.stopper;
    try {
      for await (const event of llmjobs.stream(shown.id, { after: shown.seq, signal, onState })) {
        shown.seq = event.seq;
        apply(shown, event);
      }
      if (!shown.isOver) read(shown);
    } catch (error) {
      // A WebSocket calls everybody it does not know a stranger to the job; HTTP says whether the session has ended.
      const reason = await llmjobs.get(shown.id, { signal }).then(() => error, (better) => better);
      if (!signal.aborted) showError(shown, reason);
    } finally {
      if (current === shown) onState("live"); // nothing of this job is awaited any more
    }
  }

  function apply(shown, { type, data }) {
    const { output } = card;
    const wasAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < NEAR_END_PX;
    if (type === "delta") output.append(data.text);
    if (type === "reset") output.replaceChildren();
    if (type === "status") {
      if (isAlive(shown.job)) Object.assign(shown.job, data); // else the log is telling how it came to its end
      readSoon(shown);
    }
    if (type === "done" && !data.superseded) finish(shown, data);
    if (wasAtEnd) output.scrollTop = shown.wasLive ? output.scrollHeight : 0; // what is complete is read from its beginning
    if (type !== "delta") render();
  }

  /** The log may be gone (pruned) or without text (embeddings); the job's own text is what counts. */
  function finish(shown, job) {
    shown.isOver = true;
    shown.job = job.erased ? { ...shown.job, ...job } : job;
    if (job.output_text && card.output.textContent !== job.output_text) card.output.replaceChildren(job.output_text);
    card.output.normalize();
  }

  function readSoon(shown) {
    clearTimeout(burst);
    burst = setTimeout(() => read(shown), BURST_MS);
  }

  /** @returns {Promise<number|null>} the seconds after which the server wants to be asked again, if it said so */
  async function read(shown) {
    try {
      const { job, retryAfter } = await llmjobs.poll(shown.id, { signal: shown.stopper.signal });
      if (current !== shown || shown.isOver) return null; // `done` brought a newer one
      shown.job = job;
      shown.wasLive ||= isAlive(job);
      render();
      return retryAfter;
    } catch (error) {
      if (!shown.stopper.signal.aborted && !error.isTemporary) showError(shown, error);
      return error.retryAfter ?? null;
    }
  }

  async function pollPlace(shown) {
    let waitMs = POLL_MS;
    while (current === shown && !shown.isOver) {
      await new Promise((resolve) => { setTimeout(resolve, waitMs); });
      const isWaiting = shown.job === null || ["queued", "scheduled"].includes(shown.job.status);
      if (current !== shown || shown.isOver || !isWaiting || document.hidden) continue;
      waitMs = Math.max(POLL_MS, ((await read(shown)) ?? 0) * 1000);
    }
  }

  function render() {
    const { id, job, cancelAsked } = current;
    const isTerminal = TERMINAL.has(job?.status);
    setText(card.id, id);
    setHidden(card.status, !job);
    setHidden(card.copy, !job);
    setHidden(card.cancel, !job || isTerminal);
    card.cancel.disabled = cancelAsked || Boolean(job?.cancel_requested);
    setText(card.cancel, card.cancel.disabled ? "Cancelling…" : "Cancel");
    card.output.setAttribute("aria-busy", String(Boolean(job) && !isTerminal));
    card.output.dataset.placeholder = isTerminal ? "No text." : "Nothing yet.";
    if (job) renderFacts(job);
  }

  function renderFacts(job) {
    const now = Date.now();
    const { input, output } = display.tokens(job.usage);
    setStatus(card.status, job.status);
    setText(card.place, display.place(job, now));
    setText(card["tokens-in"], input);
    setText(card["tokens-out"], output);
    setText(card.cost, display.money(job.cost_usd));
    setText(card.attempts, display.attempts(job));
    setText(card.model, job.model);
    setText(card.priority, job.priority);
    setText(card.client, job.client);
    const { waited, ran } = display.times(job, now);
    setText(card.waited, waited);
    setText(card.ran, ran);
    renderProblem(display.problem(job));
  }

  function renderProblem(problem) {
    setHidden(card.problem, !problem);
    setText(card["problem-code"], problem?.code ?? "");
    setText(card["problem-message"], problem?.message ?? "");
  }

  function showError(shown, error) {
    if (current !== shown || isSessionEnd(error)) return;
    const message = error.status === 404 ? "There is no such job, or it is not yours." : display.callError(error);
    renderProblem({ code: error.code ?? error.name, message });
    if (!shown.job) setHidden(card.status, true);
  }

  async function cancel() {
    const shown = current;
    if (shown.job.status === "running" && !(await isConfirmed(byId("cancel-dialog")))) return;
    shown.cancelAsked = true;
    render();
    try {
      const job = await llmjobs.cancel(shown.id);
      if (!shown.isOver) shown.job = job;
      if (current === shown) render();
    } catch (error) {
      shown.cancelAsked = false;
      if (current === shown) render();
      showError(shown, error);
    }
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(card.output.textContent);
      setText(card.copy, "Copied");
    } catch {
      getSelection().selectAllChildren(card.output); // by plain HTTP there is no clipboard, but the keyboard has one
      setText(card.copy, "Selected");
    }
    setTimeout(() => setText(card.copy, "Copy"), COPIED_MS);
  }

  card.cancel.addEventListener("click", cancel);
  card.copy.addEventListener("click", copy);
  setInterval(() => {
    if (current?.job && !current.isOver && !document.hidden) renderFacts(current.job);
  }, CLOCK_MS);

  return { open, reopen };
}

function isAlive(job) {
  return job !== null && !TERMINAL.has(job.status);
}

/** True if the dialog's "cancel" button closed it; Escape and all else is no. */
function isConfirmed(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "cancel"), { once: true });
  });
}
