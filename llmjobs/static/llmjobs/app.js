/**
 * The page at `/`: what joins the composer, the open job and the list.
 *
 * The address says which job is open (`#job=<id>`), so that links, the back button and a reload need nothing else.
 * Transport is client.js, wording display.js, the open job job_view.js, the list job_list.js, the form composer.js.
 */

import { createCallers } from "./callers.js";
import { LLMJobs } from "./client.js";
import { createComposer } from "./composer.js";
import { createConnection, isSessionEnd, logOutTogether } from "./connection.js";
import { byId } from "./dom.js";
import { createJobActions } from "./job_actions.js";
import { createJobList } from "./job_list.js";
import { createJobView } from "./job_view.js";
import { createMemory } from "./remembered.js";
import { press, startShortcuts } from "./shortcuts.js";

const llmjobs = new LLMJobs();
const connection = createConnection();
const memory = createMemory(byId("user").dataset.id);
const clients = [...byId("client").options].map((option) => option.value);
const clientFor = createCallers(clients, llmjobs);

const view = createJobView({ llmjobs, isSessionEnd, onState: connection.reporter("job"), onChange: (shown, answer) => {
  actions.render(shown);
  composer.follow(shown, answer);
} });
const list = createJobList({ llmjobs, isSessionEnd, onState: connection.reporter("jobs"), onStatus: view.reopen });
const composer = createComposer({ llmjobs, clientFor, memory, isSessionEnd, onSubmitted, openId });
const actions = createJobActions({ view, clientFor, composer, onSubmitted, onErased });

function openId() {
  return /^#job=([\w-]+)$/.exec(location.hash)?.[1] ?? null;
}

function openFromAddress() {
  const id = openId();
  if (id) return open(id);
  view.close();
  list.markOpen(null);
}

function open(id, job = null) {
  view.open(id, job);
  list.markOpen(id);
}

function onSubmitted(job) {
  list.upsert(job);
  open(job.id, job);
  location.hash = `job=${job.id}`; // and so showCard
}

/** Its ledger stays, so the row does too, without its words. */
function onErased(job) {
  list.upsert({ ...job, output: null, output_text: "", prompt_hash: null });
  view.forget(job.id);
}

/** Where the layout is one column, the card may be far from what was clicked. */
function showCard() {
  if (!openId()) return;
  const { top } = byId("job").getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) byId("job").scrollIntoView({ block: "start" });
}

function step(by) {
  const id = list.neighbour(by);
  if (id) location.hash = `job=${id}`;
}

startShortcuts({
  "/": () => byId("search").focus(),
  n: () => { press("composer-new"); byId("prompt").focus(); },
  j: () => step(1),
  k: () => step(-1),
  c: () => press("job-copy"),
  r: () => press("job-reply"),
}, memory);
logOutTogether({ llmjobs, form: byId("logout"), memory });
addEventListener("hashchange", () => { openFromAddress(); showCard(); });
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the open job's
  byId("content").focus();
});
openFromAddress();
list.follow();
