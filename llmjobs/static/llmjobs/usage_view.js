/**
 * What a client used in a month beside its budget and its limits: figures, bars, a picture of the days, and the same as a
 * table. Owns the section `#usage`.
 */

import * as display from "./display.js";
import { byId, make, setHidden, setText } from "./dom.js";
import { daysPicture } from "./days_picture.js";
import * as months from "./months.js";

const AGAIN_MS = 10_000;

/** @param {{llmjobs: import("./client.js").LLMJobs, guarded: Function}} page */
export function startUsage({ llmjobs, guarded }) {
  let month = null; // null: this one, by the server's clock
  let newest = null;
  let usage = null;
  let asking = null;

  async function load() {
    asking?.abort();
    const { signal } = (asking = new AbortController());
    await guarded(byId("usage-error"), async () => {
      const found = await llmjobs.json(`/api/usage${month ? `?month=${month}` : ""}`, { signal }).catch((error) => {
        if (!signal.aborted) throw error;
        return null;
      });
      if (!found) return;
      usage = found;
      newest ??= found.month;
      render();
    });
  }

  function render() {
    const isNow = usage.month === newest;
    setText(byId("usage-month"), months.named(usage.month));
    byId("usage-later").disabled = isNow;
    setHidden(byId("usage-body"), false);
    setHidden(byId("usage-now"), !isNow);
    renderBudget(isNow);
    if (isNow) renderNow();
    renderDays();
  }

  function renderBudget(isNow) {
    const { budget_usd: budget, spent_usd: spent, expected_usd: expected } = usage;
    const all = spent + expected;
    setText(byId("usage-spent"), display.money(spent));
    setText(byId("usage-expected"), display.money(expected));
    // The budget is today's: nobody knows what it was in a month that is over.
    for (const part of ["expected", "budget", "left"]) setHidden(byId(`usage-${part}-part`), !isNow);
    setText(byId("usage-budget"), budget === null ? "no budget" : display.money(budget));
    setText(byId("usage-left"), budget === null ? "–" : display.money(Math.max(0, budget - all)));
    setHidden(byId("budget-meter"), budget === null || !isNow);
    setHidden(byId("budget-over"), budget === null || !isNow || all < budget);
    if (budget !== null) setMeter(byId("budget-meter"), budget === 0 ? 1 : all / budget, `${display.money(all)} of ${display.money(budget)}`);
  }

  function renderNow() {
    const { limits, now } = usage;
    const rows = [
      ["Running", now.running, limits.max_running],
      ["Waiting jobs", now.queued, limits.max_queued],
      ["Waiting tokens", now.queued_tokens, limits.max_queued_tokens],
      ["Requests this minute", usedOf(limits.rpm, now.requests_left), limits.rpm],
      ["Tokens this minute", usedOf(limits.tpm, now.tokens_left), limits.tpm],
    ];
    byId("usage-limits").replaceChildren(...rows.map(([name, used, most]) => limitRow(name, used, most)));
  }

  function renderDays() {
    const measure = byId("usage-measure").value;
    const days = months.filled(usage.month, usage.days);
    byId("usage-picture").replaceChildren(daysPicture(days, measure, usage.month));
    const used = usage.days.filter((day) => day.jobs > 0 || day.attempts > 0);
    byId("usage-days").replaceChildren(...used.map(dayRow));
    setHidden(byId("usage-no-days"), used.length > 0);
    setHidden(byId("usage-table"), used.length === 0);
  }

  function go(by) {
    if (!usage) return;
    month = months.moved(usage.month, by);
    load();
  }

  byId("usage-earlier").addEventListener("click", () => go(-1));
  byId("usage-later").addEventListener("click", () => go(1));
  byId("usage-measure").addEventListener("change", () => usage && renderDays());
  addEventListener("online", load);
  setInterval(() => { if (!document.hidden && (!usage || usage.month === newest)) load(); }, AGAIN_MS);
  load();
}

function usedOf(limit, left) {
  return limit === null || left === null ? null : limit - left;
}

function limitRow(name, used, most) {
  const words = used === null && most === null ? "no limit" : most === null ? `${display.count(used)}, no limit` : `${used === null ? "–" : display.count(used)} of ${display.count(most)}`;
  const meter = make("div", { class: "meter" }, make("span"));
  setMeter(meter, most === null || used === null ? 0 : most === 0 ? 1 : used / most, words);
  return make("li", {}, make("span", { class: "limit-name" }, name), make("span", { class: "limit-words" }, words), meter);
}

/** The bar is for the eyes; the words beside it say the same. `share` is 0 to 1 and beyond. */
function setMeter(meter, share, words) {
  meter.dataset.level = share >= 1 ? "full" : share >= 0.8 ? "high" : "fine";
  meter.title = words;
  meter.firstElementChild.style.width = `${Math.min(100, Math.max(0, share * 100))}%`; // by the DOM: the policy allows that
}

function dayRow({ day, jobs, attempts, input_tokens: input, output_tokens: output, cost_usd: cost }) {
  const cells = [jobs, attempts, input, output].map((value) => make("td", { class: "number" }, display.count(value)));
  return make("tr", {}, make("th", { scope: "row" }, months.dayNamed(day)), ...cells, make("td", { class: "number" }, display.money(cost)));
}
