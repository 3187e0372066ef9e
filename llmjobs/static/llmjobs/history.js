/**
 * What the list of jobs is asked for: words, a status, a model, a client. Owns the form `#history` and the line that says
 * how far a search has looked; the list itself is job_list.js.
 */

import { searchedBack } from "./display.js";
import { byId, setHidden, setText } from "./dom.js";

const TYPING_MS = 350; // from the last letter to the search

/** @param {{onChange: () => void}} list */
export function createHistory({ onChange }) {
  const form = byId("history");
  let timer = 0;
  let asked = JSON.stringify(filters());

  /** @returns {Object<string, string>} parameters of `GET /api/jobs`; none for a field that is empty */
  function filters() {
    return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
  }

  function isNarrowed() {
    return Object.keys(filters()).length > 0;
  }

  function changed() {
    clearTimeout(timer);
    const now = JSON.stringify(filters());
    if (now === asked) return;
    asked = now;
    setHidden(byId("history-clear"), !isNarrowed());
    showReach(null, false);
    onChange();
  }

  function showReach(searchedTo, isMore) {
    const isSearch = "search" in filters();
    setText(byId("jobs-reach"), isSearch && (searchedTo || !isMore) ? searchedBack(searchedTo, isMore) : "");
    setText(byId("jobs-more"), isSearch ? "Search further back" : "Load more");
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
  form.addEventListener("change", changed);
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(changed, TYPING_MS); });
  byId("history-clear").addEventListener("click", () => {
    form.reset();
    changed();
    byId("search").focus();
  });
  return { filters, isNarrowed, showReach };
}
