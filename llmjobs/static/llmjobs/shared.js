/**
 * The page behind a link, while its job goes on: asks for what was written since, and puts it behind what is there.
 *
 * Asked beside the page's own address, so that the link's token stands nowhere else. A page that nobody looks at does
 * not ask. What was read stays when the server is away: it is asked again, at longer and longer intervals.
 */

const EVERY_MS = 1500;
const LONGEST_MS = 60_000;

const article = document.getElementById("shared");
const words = document.getElementById("shared-text");
const standing = document.getElementById("shared-standing");
let { epoch, length } = article.dataset;
let wait_ms = EVERY_MS;

async function ask() {
  if (document.hidden) return later();
  let told;
  try {
    const answer = await fetch(`text?${new URLSearchParams({ epoch, length })}`, { credentials: "omit" });
    if (answer.status === 404) return location.reload(); // it is over: the page says so
    if (!answer.ok) throw new Error(String(answer.status));
    told = await answer.json();
  } catch {
    wait_ms = Math.min(2 * wait_ms, LONGEST_MS);
    return later();
  }
  wait_ms = EVERY_MS;
  show(told);
  if (!told.is_over) later();
}

function show(told) {
  if (told.is_whole) words.textContent = told.text;
  else if (told.text) words.append(told.text);
  if (standing.textContent !== told.standing) standing.textContent = told.standing;
  standing.hidden = !told.standing;
  words.ariaBusy = String(!told.is_over);
  ({ epoch, length } = told);
}

function later() {
  setTimeout(ask, wait_ms);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) wait_ms = EVERY_MS;
});
later();
