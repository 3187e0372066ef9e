/**
 * The form that asks: prompt, model, priority, parameters, in whose name, alone or as a turn of a conversation.
 *
 * Owns `#composer`, the choices that the browser remembers, and the draft that outlives a reload and a log-in. Does not
 * own what is sent for it (asked.js) nor the job that it becomes.
 */

import * as asked from "./asked.js";
import { callError, contextLine, waitingLine } from "./display.js";
import { byId, setHidden, setText } from "./dom.js";
import { createFields } from "./fields.js";
import { createModels } from "./models.js";

const DRAFT_MS = 300;

/**
 * @param {{llmjobs: import("./client.js").LLMJobs, clientFor: (name: string) => import("./client.js").LLMJobs,
 *   memory: ReturnType<import("./remembered.js").createMemory>, isSessionEnd: (error: Error) => boolean,
 *   onSubmitted: (job: import("./client.js").Job) => void, openId: () => string|null}} page
 */
export function createComposer({ llmjobs, clientFor, memory, isSessionEnd, onSubmitted, openId }) {
  const form = byId("composer");
  const button = byId("submit");
  const fields = createFields({ form, memory, onMode: modeChanged });
  const models = createModels({ llmjobs, form, memory, onReady: () => { isReady = true; render(); }, onError: (error) => {
    if (!isSessionEnd(error)) fields.showError(null, `The models can’t be listed. ${callError(error)}`);
  } });
  let isReady = false; // the models are known
  let waiting = null; // {stopper, line} while a submit is under way
  let context = asked.fresh();
  let shown = null; // the open job, as job_view.js tells of it
  let said = ""; // its answer so far
  let leftId = null; // the open job that the next prompt is not to continue
  let unanswered = null; // {key, what} of a submit of which nobody knows whether it arrived
  let draftTimer = 0;

  function isConversation() {
    return fields.mode() === "conversation";
  }

  /** The open job, or what is known of it, is another. A prompt that is being reworded stays what it is. */
  function follow(now, answer) {
    if (now.id !== shown?.id) leftId = null;
    [shown, said] = [now, answer];
    if (context.kind === "edit" || (!now.job && now.id === context.of)) return;
    if (!belongs(now)) context = asked.fresh();
    else if (asked.canGoOn(now.asked)) context = asked.replyTo(now.job, now.asked, answer);
    else context = { ...asked.fresh(), kind: "reply", of: now.id }; // what it was asked is not read yet
    render();
  }

  /** Whether the next prompt goes on from this job. */
  function belongs({ id, job, asked: request }) {
    if (!isConversation() || id === leftId || !job?.prompt_hash || (request && !asked.canGoOn(request))) return false;
    return Boolean(job.metadata?.conversation) || id === context.of;
  }

  function isBeingAnswered() {
    return context.kind === "reply" && shown?.id === context.of && !(shown.isOver && shown.asked);
  }

  function render() {
    setText(byId("composer-context-text"), contextLine(context, isBeingAnswered()));
    setHidden(byId("composer-context"), context.kind === "new");
    fields.showContext(context);
    setHidden(byId("composer-waiting"), !waiting?.line);
    setText(byId("composer-waiting-text"), waiting?.line ?? "");
    button.disabled = !isReady || waiting !== null || isBeingAnswered();
  }

  function startAnew() {
    leftId = openId();
    context = asked.fresh();
    render();
    byId("prompt").focus();
  }

  function modeChanged() {
    if (context.kind === "edit") return render();
    leftId = null;
    if (shown) follow(shown, said);
    else render();
  }

  /** "Reply" at a job, also at one that was asked alone: from there on it is a conversation. */
  function reply(now, answer) {
    fields.setMode("conversation");
    [shown, said] = [now, answer];
    leftId = null;
    context = asked.replyTo(now.job, now.asked, answer);
    takeFrom(now);
    render();
    byId("prompt").focus();
  }

  function edit(now) {
    context = asked.editOf(now.job, now.asked);
    fields.fill(asked.formOf(now.asked));
    takeFrom(now);
    render();
    keepDraft();
    byId("prompt").focus();
  }

  /** Model and client are those of the job that is continued. */
  function takeFrom({ job }) {
    fields.setClient(job.client);
    models.select(job.model);
  }

  async function submit(event) {
    event.preventDefault();
    if (button.disabled) return;
    const stopper = new AbortController();
    const hadFocus = document.activeElement === button; // which a disabled button loses
    waiting = { stopper, line: "" };
    fields.showError(null, "");
    render();
    try {
      const onWait = (state) => { waiting = { stopper, line: waitingLine(state) }; render(); };
      const submitted = submission();
      const options = { idempotencyKey: keyOf(submitted), signal: stopper.signal, onWait };
      onSent(await clientFor(fields.client()).submit(submitted, options));
    } catch (error) {
      if (error.status === 0 && error.idempotencyKey) unanswered = { key: error.idempotencyKey, what: whatOf(submission()) };
      if (!stopper.signal.aborted && !isSessionEnd(error)) fields.showError(error.param, callError(error));
    } finally {
      waiting = null;
      render();
      if (hadFocus && document.activeElement === document.body) (button.disabled ? byId("job-title") : button).focus({ preventScroll: true });
    }
  }

  /** The key of the try before, if that got no answer and asked for just this: it may have arrived. */
  function keyOf(submitted) {
    return unanswered?.what === whatOf(submitted) ? unanswered.key : undefined;
  }

  function whatOf(submitted) {
    return JSON.stringify([fields.client(), submitted]);
  }

  function submission() {
    if (isConversation() && context.kind === "new") context = asked.fresh(newConversation());
    return asked.submission({ ...fields.values(), model: models.value() }, context);
  }

  function onSent(job) {
    fields.remember();
    unanswered = null;
    const wasTurn = context.kind !== "new" || isConversation();
    context = asked.fresh();
    if (wasTurn) byId("prompt").value = "";
    keepDraft();
    onSubmitted(job);
  }

  /** What is written, and what it continues, outlive a reload and a log-in. One too large for the store keeps its text. */
  function keepDraft() {
    const { prompt, system } = fields.values();
    if (!prompt) return memory.dropDraft();
    const { kind, of } = context;
    const kept = { prompt, system, context: kind === "edit" ? context : { ...asked.fresh(), of: kind === "reply" ? of : null } };
    return memory.keepDraft(kept) || memory.keepDraft({ prompt, system });
  }

  function restoreDraft() {
    const draft = memory.draft();
    if (typeof draft.prompt !== "string") return;
    fields.fill({ prompt: draft.prompt, system: draft.system ?? "" });
    context = draft.context ?? context;
  }

  form.addEventListener("submit", submit);
  form.addEventListener("input", () => {
    clearTimeout(draftTimer);
    draftTimer = setTimeout(keepDraft, DRAFT_MS);
  });
  addEventListener("pagehide", keepDraft);
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  byId("composer-new").addEventListener("click", startAnew);
  byId("composer-stop").addEventListener("click", () => waiting?.stopper.abort());
  restoreDraft();
  models.load();
  render();

  return { follow, reply, edit };
}

function newConversation() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
