/**
 * What the page says: jobs, places, amounts and times in words. Pure: values in, text out; no DOM, no clock of its own.
 *
 * @typedef {import("./client.js").Job} Job
 */

import { TERMINAL } from "./client.js";

const ENDINGS = { one: "st", two: "nd", few: "rd", other: "th" };
const ordinalRules = new Intl.PluralRules("en", { type: "ordinal" });
const wholeNumber = new Intl.NumberFormat("en");
const relativeTime = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

const BLOCKED_BY = {
  rate_limit: "waits for the model’s rate limit",
  client_rate_limit: "waits for your own rate limit",
  client_concurrency: "waits for one of your running jobs to end",
  model_concurrency: "waits for a running job of this model to end",
  client_paused: "your client is paused by an operator",
  model_paused: "this model is paused by an operator",
  provider_paused: "the provider is paused by an operator",
  provider_down: "the provider is down; it is tried again by itself",
  provider_quota: "the provider’s quota is used up; an operator has to act",
  provider_auth: "the provider refuses our key; an operator has to act",
  claims_paused: "starts are paused by an operator",
  no_worker: "no worker is running",
};

/** 1 → "1st" */
export function ordinal(number) {
  return `${wholeNumber.format(number)}${ENDINGS[ordinalRules.select(number)]}`;
}

/** Where a waiting job stands, e.g. "3rd in line, about 4 s", or that a running one began anew; "" for any other job. @param {Job} job */
export function place(job, nowMs) {
  if (job.status === "scheduled") return scheduledFor(job, nowMs);
  if (job.status === "running" && job.failures > 0) return `Attempt ${job.attempt}: the one before broke off, and the text began anew.`;
  if (job.status !== "queued") return "";
  const parts = [];
  if (job.position !== null && job.position !== undefined) {
    parts.push(job.position === 0 ? "Next in line" : `${ordinal(job.position + 1)} in line`);
  }
  if (job.eta_s !== null && job.eta_s !== undefined) parts.push(`about ${duration(Math.max(1, Math.round(job.eta_s)))}`);
  if (job.blocked_by) parts.push(BLOCKED_BY[job.blocked_by] ?? job.blocked_by.replaceAll("_", " "));
  const text = parts.join(", ") || "In line";
  return capitalized(text);
}

function capitalized(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function scheduledFor(job, nowMs) {
  const seconds = (Date.parse(job.available_at) - nowMs) / 1000;
  const when = seconds > 1 ? `in ${duration(seconds)}` : "in a moment";
  return job.failures > 0 ? `Tries again ${when}` : `Starts ${when} at the earliest`;
}

/** 83 → "1 min 23 s" */
export function duration(seconds) {
  if (seconds < 9.95) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return inUnits(whole, 60, "min", "s");
  return inUnits(Math.round(whole / 60), 60, "h", "min");
}

function inUnits(count, size, unit, smallUnit) {
  const rest = count % size;
  return `${Math.floor(count / size)} ${unit}${rest ? ` ${rest} ${smallUnit}` : ""}`;
}

/** Dollars with two digits that matter: 0.000412 → "$0.00041", 12.5 → "$12.50"; "–" where it is not known. */
export function money(usd) {
  if (usd === null || usd === undefined) return "–";
  const amount = Number(usd);
  if (amount === 0 || amount >= 1) return `$${amount.toFixed(2)}`;
  const digits = Math.min(8, Math.max(2, 1 - Math.floor(Math.log10(amount))));
  return `$${amount.toFixed(digits)}`;
}

/** 12345 → "12,345" */
export function count(number) {
  return wholeNumber.format(number);
}

/** @returns {{input: string, output: string}} of either usage shape (chat completions, responses); "–" where not known */
export function tokens(usage) {
  const input = usage?.input_tokens ?? usage?.prompt_tokens;
  const output = usage?.output_tokens ?? usage?.completion_tokens;
  const text = (count) => (count === null || count === undefined ? "–" : wholeNumber.format(count));
  return { input: text(input), output: text(output) };
}

/** "2 min. ago" */
export function ago(iso, nowMs) {
  const seconds = Math.round((Date.parse(iso) - nowMs) / 1000);
  if (seconds > -10) return "just now";
  for (const [unit, length] of [["day", 86_400], ["hour", 3600], ["minute", 60]]) {
    if (-seconds >= length) return relativeTime.format(Math.round(seconds / length), unit);
  }
  return relativeTime.format(seconds, "second");
}

/** How long a job waited before its latest start, and how long that has run. @param {Job} job */
export function times(job, nowMs) {
  const started = job.started_at ? Date.parse(job.started_at) : null;
  const finished = job.finished_at ? Date.parse(job.finished_at) : null;
  const between = (from, to) => duration(Math.max(0, (to - from) / 1000));
  const isHeld = job.status === "running" || finished !== null;
  return {
    waited: between(Date.parse(job.created_at), started ?? finished ?? nowMs),
    ran: started !== null && isHeld ? between(started, finished ?? nowMs) : "–",
  };
}

/** "5", or "5 (2 failed)". @param {Job} job */
export function attempts(job) {
  return job.failures > 0 ? `${job.attempt} (${job.failures} failed)` : String(job.attempt);
}

/** What a row says of a job that has no text (yet). @param {Job} job */
export function wordless(job) {
  if (job.status === "expired") return "not started in time";
  if (job.prompt_hash === null) return "deleted";
  const isOver = TERMINAL.has(job.status);
  return problem(job)?.code.replaceAll("_", " ") ?? (isOver ? "no text" : "no text yet");
}

/** What a model of `GET /api/models` costs, where that is known, and whether it starts jobs at all. */
export function modelHint(model) {
  const { input_usd_per_mtok: input = null, output_usd_per_mtok: output = null } = model?.prices ?? {};
  const price = input === null ? "" : `${money(input)} in, ${money(output)} out, per million tokens.`;
  return [price, model?.is_paused ? "Paused by an operator: its jobs wait." : ""].filter(Boolean).join(" ");
}

/** What went wrong with a job, or null. @param {Job} job @returns {{code: string, message: string}|null} */
export function problem(job) {
  if (job.status === "expired") return { code: job.error?.code ?? "expired", message: job.error?.message ?? "It was not started before its deadline." };
  if (!job.error || job.status === "completed") return null;
  return { code: job.error.code, message: job.error.message };
}

/** What the next prompt continues; "" where it begins something. @param {import("./asked.js").Context} context */
export function contextLine({ kind, turn }, isBeingAnswered) {
  if (kind === "new") return "";
  if (kind === "edit") return turn > 1 ? `Rewords turn ${turn}; what came before it is sent along.` : "Rewords an earlier prompt.";
  return isBeingAnswered ? "The answer is still being written." : `Continues the conversation: turn ${turn}.`;
}

const WAITING_FOR = {
  queue_full: "the queue is full",
  rate_limit_exceeded: "the limit a minute is reached",
  connection_error: "the server can’t be reached",
};

/** What a submit waits for in the page; "" while it is simply under way. @param {{before: number, until: Date|null, reason: string|null}} state */
export function waitingLine({ before, until, reason }) {
  if (!reason && !before) return "";
  const why = reason ? `: ${WAITING_FOR[reason] ?? reason.replaceAll("_", " ")}` : "";
  const ahead = before ? `, ${wholeNumber.format(before)} before it` : "";
  const when = until ? ` The next try is at ${until.toLocaleTimeString("en", { timeStyle: "medium" })}.` : "";
  return `Waits its turn${why}${ahead}. It is sent by itself.${when}`;
}

/** How far a search has looked. @param {string|null} searchedTo ISO time of the oldest job it looked at @param {boolean} isMore */
export function searchedBack(searchedTo, isMore) {
  if (!isMore || !searchedTo) return "Searched all of your jobs.";
  return `Searched back to ${new Date(searchedTo).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })}.`;
}

/** What an error of a call means to the person at the page. @param {import("./client.js").LLMJobsError} error */
export function callError(error) {
  if (error.status === 0 && error.code === "connection_error") return "The server can’t be reached. What you wrote is kept; try again in a moment.";
  if (error.code === "insufficient_quota") return `The budget is used up: no job is accepted until it is raised, or until the next month. ${sentence(error.message)}`;
  const again = error.retryAfter ? ` Try again in ${duration(error.retryAfter)}.` : "";
  return `${sentence(error.message)}${again}`;
}

function sentence(text) {
  return capitalized(text).replace(/([^.!?])$/, "$1.");
}
