/* Keeps the page of a job fresh until the job is over. Who may see content follows its events, and reads the text as it comes; all
   others, and pages whose WebSocket can't get through, ask every few seconds. What the server drew is exchanged in parts, and only
   where they differ, so that nothing flickers and what the reader has opened stays open.

   Owns no state of the job: the server says how it stands. What a model wrote gets here as text nodes only. */

import { LLMJobs, TERMINAL } from "./client.js";

const EVERY_MS = 3_000;
const BURST_MS = 150; // events come in bursts: one look for all of them
const NEAR_END_PX = 40; // a reader so close to the end wants to stay there

const page = document.querySelector("[data-llmjobs-job]");
const stopper = new AbortController();
let timer = 0;
let isStreaming = false; // a piece of the present attempt came: the text on the page is ahead of the server's

const part = (name, root = document) => root.querySelector(`[data-part="${name}"]`);
const stateOf = (root) => part("state", root)?.querySelector("[data-state]")?.dataset.state;
const isOver = () => TERMINAL.has(stateOf(document));

async function refresh() {
  let fresh;
  try {
    const answer = await fetch(page.dataset.llmjobsJob, { headers: { Accept: "text/html" }, signal: stopper.signal });
    if (!answer.ok || answer.redirected) return; // logged out, or the server is away
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return;
  }
  const keepsText = isStreaming && stateOf(fresh) === "running";
  for (const next of fresh.querySelectorAll("[data-part]")) {
    const name = next.dataset.part;
    if (!(name === "output" && keepsText)) exchange(part(name), next);
  }
  if (isOver()) stopper.abort();
}

function exchange(shown, next) {
  if (!shown || shown.contains(document.activeElement)) return; // a button that somebody is about to press
  for (const opened of shown.querySelectorAll("details[data-key][open]")) {
    next.querySelector(`details[data-key="${opened.dataset.key}"]`)?.setAttribute("open", "");
  }
  for (const button of next.querySelectorAll("[data-copy]")) button.hidden = false;
  if (next.innerHTML !== shown.innerHTML) shown.replaceChildren(...next.childNodes);
}

function schedule(wait_ms = EVERY_MS) {
  clearTimeout(timer);
  if (stopper.signal.aborted || document.hidden) return;
  timer = setTimeout(() => refresh().finally(schedule), wait_ms);
}

/** The text as it comes. Where this fails (no WebSocket, no access) the page is asked for as for everybody else. */
async function follow() {
  const llmjobs = new LLMJobs();
  try {
    for await (const { type, data } of llmjobs.stream(page.dataset.id, { after: Number(page.dataset.after), signal: stopper.signal })) {
      if (type === "delta") append(data.text);
      else {
        if (type === "reset" || type === "status") isStreaming = false;
        if (type === "reset") write("");
        schedule(BURST_MS);
      }
    }
  } catch {
    return;
  }
}

function append(text) {
  if (!isStreaming) write("");
  isStreaming = true;
  const output = document.querySelector("[data-stream]");
  if (!output) return;
  const wasAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < NEAR_END_PX;
  output.append(text);
  output.hidden = false;
  document.querySelector("[data-none]")?.remove();
  if (wasAtEnd) output.scrollTop = output.scrollHeight;
}

function write(text) {
  document.querySelector("[data-stream]")?.replaceChildren(text);
}

if (page && !isOver()) {
  document.addEventListener("visibilitychange", () => schedule(0));
  schedule();
  if ("follows" in page.dataset) follow();
}
