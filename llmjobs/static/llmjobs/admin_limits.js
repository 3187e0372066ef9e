/* Keeps the last hour on a model's page fresh: every 15 seconds while somebody looks, and at once when they come back.
   Owns no picture: the server draws it. Only parts that differ are exchanged, so that nothing flickers and what the
   reader has opened stays open. Where an answer fails, what is shown stays, and the next one is asked for in time. */

const EVERY_MS = 15_000;
const section = document.querySelector("[data-llmjobs-limits]");
let asked_ms = performance.now();
let timer = 0;

async function refresh() {
  asked_ms = performance.now();
  let fresh;
  try {
    const answer = await fetch(section.dataset.llmjobsLimits, { headers: { Accept: "text/html" } });
    if (!answer.ok || answer.redirected) return; // logged out, or the server is away
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return;
  }
  for (const part of section.querySelectorAll("[data-part]")) {
    const next = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
    if (next && next.innerHTML !== part.innerHTML) part.replaceChildren(...next.childNodes);
  }
}

function schedule() {
  clearTimeout(timer);
  if (document.hidden) return;
  const wait_ms = Math.max(0, asked_ms + EVERY_MS - performance.now());
  timer = setTimeout(() => refresh().finally(schedule), wait_ms);
}

if (section) {
  document.addEventListener("visibilitychange", schedule);
  schedule();
}
