/**
 * The list of the caller's jobs: a row each, newest first, live.
 *
 * Owns the section `#jobs`. The list is read at each (re)connection, and kept by the events in between. Ids are UUIDv7:
 * their order is the order of submission.
 */

import * as display from "./display.js";
import { byId, setHidden, setStatus, setText } from "./dom.js";

const PAGE_SIZE = 20;
const EXCERPT_CHARS = 160;
const RELOAD_MS = 1000; // a bulk of submits is one read
const CLOCK_MS = 10_000;

/**
 * @param {{llmjobs: import("./client.js").LLMJobs, onState: (state: string) => void,
 *   onStatus: (id: string) => void, isSessionEnd: (error: Error) => boolean}} page
 */
export function createJobList({ llmjobs, onState, onStatus, isSessionEnd }) {
  const { client } = byId("jobs").dataset; // an operator could list everybody's, but this is the list of one's own
  const entries = new Map(); // id → {row, job, toldAt}; the job's text is cut to what a row shows
  let openId = null;
  let cursor = null;
  let hasLoaded = false;
  let reload = 0;

  async function load({ more = false } = {}) {
    const beganAt = performance.now();
    const isStale = ({ id }) => entries.get(id)?.toldAt > beganAt; // an event overtook this answer
    try {
      const { data, next } = await llmjobs.list({ limit: PAGE_SIZE, client, cursor: more ? cursor : null });
      data.filter((job) => !isStale(job)).forEach(upsert);
      if (more || !hasLoaded) cursor = next;
      hasLoaded = true;
      setHidden(byId("jobs-more"), cursor === null);
      setHidden(byId("jobs-empty"), entries.size > 0);
      setHidden(byId("jobs-error"), true);
    } catch (error) {
      if (error.isTemporary && !more) return; // the stream is reconnecting too, and then the list is read again
      if (isSessionEnd(error)) return;
      setHidden(byId("jobs-error"), false);
      setText(byId("jobs-error"), display.callError(error));
    }
  }

  function loadSoon() {
    reload ||= setTimeout(() => { reload = 0; load(); }, RELOAD_MS);
  }

  /** Follows all jobs until the page goes; returns only if access ended. */
  async function follow() {
    const follower = (state) => {
      onState(state);
      if (state === "live") load();
    };
    try {
      for await (const event of llmjobs.streamAll({ onState: follower })) apply(event);
    } catch {
      onState("reconnecting");
      load(); // finds out, and says, what is the matter
    }
  }

  function apply({ job: id, type, data }) {
    const entry = entries.get(id);
    if (type === "status") onStatus(id);
    if (type === "done" && data.created_at) upsert(data);
    else if (entry) applyTo(entry, type, data);
    else if (type === "status") loadSoon();
    if (entries.has(id)) entries.get(id).toldAt = performance.now();
  }

  function applyTo(entry, type, data) {
    const { job } = entry;
    if (type === "delta" && job.output_text.length >= EXCERPT_CHARS) return;
    if (type === "delta") job.output_text = excerpt(job.output_text + data.text);
    if (type === "reset") job.output_text = "";
    if (type === "status") Object.assign(job, data);
    render(entry);
  }

  function upsert(job) {
    const entry = entries.get(job.id) ?? insert(job.id);
    entry.job = { ...job, output_text: excerpt(job.output_text ?? "") };
    render(entry);
  }

  function insert(id) {
    const entry = { row: byId("job-row").content.firstElementChild.cloneNode(true), job: null, toldAt: 0 };
    entry.row.dataset.id = id;
    const rows = byId("jobs-rows");
    rows.insertBefore(entry.row, [...rows.children].find((row) => row.dataset.id < id) ?? null);
    entries.set(id, entry);
    setHidden(byId("jobs-table"), false);
    setHidden(byId("jobs-empty"), true);
    return entry;
  }

  function render({ row, job }) {
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
    if (job.id === openId) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }

  function renderTime(time, job) {
    time.dateTime = job.created_at;
    time.title = new Date(job.created_at).toLocaleString();
    setText(time, display.ago(job.created_at, Date.now()));
  }

  function markOpen(id) {
    openId = id;
    entries.forEach(render);
  }

  byId("jobs-more").addEventListener("click", () => load({ more: true }));
  setInterval(() => {
    if (!document.hidden) entries.forEach(({ row, job }) => renderTime(row.querySelector("time"), job));
  }, CLOCK_MS);

  return { follow, markOpen, upsert };
}

function excerpt(text) {
  return text.slice(0, EXCERPT_CHARS).replace(/\s+/g, " ");
}
