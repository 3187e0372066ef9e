/**
 * The list of the caller's jobs: a row each, newest first, live.
 *
 * Owns the rows of the section `#jobs`. The list is read at each (re)connection, and kept by the events in between. What
 * is asked for (a search, a filter) history.js says: then events change the rows that are there, and add none. Ids are
 * UUIDv7: their order is the order of submission.
 */

import * as display from "./display.js";
import { byId, setHidden, setText } from "./dom.js";
import { createHistory } from "./history.js";
import { EXCERPT_CHARS, excerpt, renderRow, renderTime } from "./job_row.js";

const PAGE_SIZE = 20;
const RELOAD_MS = 1000; // a bulk of submits is one read
const CLOCK_MS = 10_000;
const ROWS_MAX = 500; // that events may grow the list to; who wants more asks for it

/**
 * @param {{llmjobs: import("./client.js").LLMJobs, onState: (state: string) => void,
 *   onStatus: (id: string) => void, isSessionEnd: (error: Error) => boolean}} page
 */
export function createJobList({ llmjobs, onState, onStatus, isSessionEnd }) {
  const { client } = byId("jobs").dataset; // an operator could list everybody's, but this is the list of one's own
  const entries = new Map(); // id → {row, job, toldAt}; the job's text is cut to what a row shows
  const history = createHistory({ onChange: restart });
  let openId = null;
  let cursor = null;
  let hasLoaded = false;
  let reload = 0;
  let asking = new AbortController();

  /** Another search or filter: what the one before would still bring is not wanted. */
  function restart() {
    asking.abort();
    asking = new AbortController();
    hasLoaded = false;
    cursor = null;
    load({ fresh: true });
  }

  async function load({ more = false, fresh = false } = {}) {
    const { signal } = asking;
    const beganAt = performance.now();
    const isStale = ({ id }) => entries.get(id)?.toldAt > beganAt; // an event overtook this answer
    if (fresh || more) setBusy(true);
    try {
      const { data, next, searched_to: searchedTo } = await llmjobs.list(
        { limit: PAGE_SIZE, client, ...history.filters(), cursor: more ? cursor : null }, { signal },
      );
      if (signal.aborted) return;
      if (fresh) clear();
      data.filter((job) => !isStale(job)).forEach(upsert);
      if (more || !hasLoaded) { cursor = next; history.showReach(searchedTo, next !== null); }
      hasLoaded = true;
      setHidden(byId("jobs-more"), cursor === null);
      showEmptiness();
      setHidden(byId("jobs-error"), true);
    } catch (error) {
      if (signal.aborted || (error.isTemporary && !more && !fresh)) return; // the stream reconnects too, and then this is read again
      if (isSessionEnd(error)) return;
      setHidden(byId("jobs-error"), false);
      setText(byId("jobs-error"), display.callError(error));
    } finally {
      if (!signal.aborted) setBusy(false);
    }
  }

  function setBusy(isBusy) {
    byId("jobs").setAttribute("aria-busy", String(isBusy));
  }

  function clear() {
    entries.clear();
    byId("jobs-rows").replaceChildren();
  }

  function showEmptiness() {
    setHidden(byId("jobs-table"), entries.size === 0);
    setHidden(byId("jobs-empty"), entries.size > 0);
    setText(byId("jobs-empty"), history.isNarrowed() ? "No job of yours matches, as far as was searched." : byId("jobs-empty").dataset.none);
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
    if (type === "done" && data.created_at && (entry || mayGrow())) upsert(data);
    else if (entry) applyTo(entry, type, data);
    else if (type === "status" && mayGrow()) loadSoon();
    if (entries.has(id)) entries.get(id).toldAt = performance.now();
  }

  /** A job that is new, or older than the last row, is not in what was asked for. */
  function mayGrow() {
    return !history.isNarrowed() && entries.size < ROWS_MAX;
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
    renderRow(row, job, job.id === openId);
  }

  function markOpen(id) {
    const before = openId;
    openId = id;
    for (const each of [before, id]) if (entries.has(each)) render(entries.get(each));
  }

  /** The row above or below the open one; the first where none is open. @param {1|-1} step */
  function neighbour(step) {
    const ids = [...byId("jobs-rows").children].map((row) => row.dataset.id);
    const at = ids.indexOf(openId);
    return ids[at === -1 ? 0 : at + step] ?? null;
  }

  byId("jobs-more").addEventListener("click", () => {
    if (byId("jobs").ariaBusy !== "true") load({ more: true }); // it is not disabled: a disabled button loses the focus
  });
  setInterval(() => {
    if (!document.hidden) entries.forEach(({ row, job }) => renderTime(row.querySelector("time"), job));
  }, CLOCK_MS);

  return { follow, markOpen, upsert, neighbour };
}
