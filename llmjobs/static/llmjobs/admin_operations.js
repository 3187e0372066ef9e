/* Keeps the page of a running operation fresh: a second after each answer, while somebody looks, until it is over.
   By POST: where no worker carries the operation out, being asked does. Only parts that differ are exchanged; one with a
   key (its buttons) only when that is another, so that nobody's click goes amiss. Where an answer fails, what is shown
   stays, and the next one is asked for in time. */

const EVERY_MS = 1_000;
const section = document.querySelector("[data-llmjobs-operation]");
let timer = 0;

async function refresh() {
  let fresh;
  try {
    const answer = await fetch(section.dataset.llmjobsOperation, {
      method: "POST",
      headers: {
        "X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "",
        "X-Requested-With": "fetch",
      },
    });
    if (!answer.ok || answer.redirected) return; // logged out, or the server is away
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return;
  }
  for (const part of section.querySelectorAll("[data-part]")) {
    const next = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
    if (next && (next.dataset.key ?? next.innerHTML) !== (part.dataset.key ?? part.innerHTML)) part.replaceWith(next);
  }
}

const isOver = () => section.querySelector("[data-over]") !== null;

function schedule() {
  clearTimeout(timer);
  if (!document.hidden && !isOver()) timer = setTimeout(() => refresh().finally(schedule), EVERY_MS);
}

if (section) {
  document.addEventListener("visibilitychange", schedule);
  schedule();
}
