/** A job as a row of the list: what is shown of it, and how much of its text. */

import * as display from "./display.js";
import { setStatus, setText } from "./dom.js";

export const EXCERPT_CHARS = 160;

export function excerpt(text) {
  return text.slice(0, EXCERPT_CHARS).replace(/\s+/g, " ");
}

/** @param {HTMLTableRowElement} row @param {import("./client.js").Job} job */
export function renderRow(row, job, isOpen) {
  const cell = (name) => row.querySelector(`.cell-${name}`);
  const { input, output } = display.tokens(job.usage);
  setStatus(row.querySelector(".badge"), job.status);
  const link = row.querySelector("a");
  link.href = `#job=${job.id}`;
  setText(link, job.output_text || display.wordless(job));
  link.classList.toggle("wordless", !job.output_text);
  setText(cell("client"), job.client);
  setText(cell("model"), job.model);
  setText(cell("priority"), job.priority);
  setText(cell("tokens"), job.usage ? `${input} → ${output}` : "");
  setText(cell("cost"), job.cost_usd === null ? "" : display.money(job.cost_usd));
  renderTime(row.querySelector("time"), job);
  if (isOpen) row.setAttribute("aria-current", "true");
  else row.removeAttribute("aria-current");
}

export function renderTime(time, job) {
  time.dateTime = job.created_at;
  time.title = new Date(job.created_at).toLocaleString();
  setText(time, display.ago(job.created_at, Date.now()));
}
