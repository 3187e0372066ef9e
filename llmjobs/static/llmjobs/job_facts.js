/** The figures of the open job: status, place, tokens, cost, times, and what went wrong. Owns no call and no state. */

import { TERMINAL } from "./client.js";
import * as display from "./display.js";
import { setHidden, setStatus, setText } from "./dom.js";

const JOB_ID = /^[\w-]{36}$/;
const FIGURES = ["tokens-in", "tokens-out", "cost", "attempts", "model", "priority", "waited", "ran"];

/** Nothing is known of the job yet: what was said of the one before is not said of it. @param {Object<string, HTMLElement>} card */
export function clearFacts(card) {
  for (const part of [card.status, card.cancel, card.origin]) setHidden(part, true);
  for (const name of FIGURES) setText(card[name], "–");
  for (const part of [card.place, card.client]) setText(part, "");
  renderProblem(card, null);
}

/** @param {Object<string, HTMLElement>} card @param {import("./job_view.js").Shown} shown */
export function renderFacts(card, { id, job, cancelAsked }) {
  const isTerminal = TERMINAL.has(job?.status);
  setText(card.id, id);
  setHidden(card.status, !job);
  setHidden(card.cancel, !job || isTerminal);
  card.cancel.disabled = cancelAsked || Boolean(job?.cancel_requested);
  setText(card.cancel, card.cancel.disabled ? "Cancelling…" : "Cancel");
  if (job?.created_at) renderFigures(card, job);
}

function renderFigures(card, job) {
  const now = Date.now();
  const { input, output } = display.tokens(job.usage);
  const { waited, ran } = display.times(job, now);
  setStatus(card.status, job.status);
  setText(card.place, display.place(job, now));
  setText(card["tokens-in"], input);
  setText(card["tokens-out"], output);
  setText(card.cost, display.money(job.cost_usd));
  setText(card.attempts, display.attempts(job));
  setText(card.model, job.model);
  setText(card.priority, job.priority);
  setText(card.client, job.client);
  setText(card.waited, waited);
  setText(card.ran, ran);
  renderOrigin(card, job.metadata ?? {});
  renderProblem(card, display.problem(job));
}

/** Which job this one repeats or rewords. */
function renderOrigin(card, { retry_of: retryOf, edit_of: editOf }) {
  const origin = retryOf ?? editOf ?? "";
  const isKnown = JOB_ID.test(origin);
  setHidden(card.origin, !isKnown);
  if (!isKnown) return;
  card.origin.href = `#job=${origin}`;
  setText(card.origin, retryOf ? "Repeats an earlier job" : "Rewords an earlier turn");
}

export function renderProblem(card, problem) {
  setHidden(card.problem, !problem);
  setText(card["problem-code"], problem?.code ?? "");
  setText(card["problem-message"], problem?.message ?? "");
}
