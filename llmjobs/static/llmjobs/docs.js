/**
 * What the documentation's pages do beside being read: copy a block, search while one types, show where one is.
 * All of it is extra: without this script every page reads, and the search answers as a page.
 */

const SEARCH_AFTER_MS = 120;
const COPIED_MS = 1500;

const byId = (id) => document.getElementById(id);

function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/* Copy. What begins a line as a prompt is no part of the command. */

for (const figure of document.querySelectorAll(".code")) {
  const button = made("button", { type: "button", className: "copy", textContent: "Copy" });
  const name = figure.querySelector("pre").getAttribute("aria-label");
  button.setAttribute("aria-label", `Copy: ${name}`);
  button.addEventListener("click", async () => {
    const isDone = await copied(figure.querySelector("code"));
    button.textContent = isDone ? "Copied" : "Selected";
    button.dataset.done = "";
    setTimeout(() => {
      button.textContent = "Copy";
      delete button.dataset.done;
    }, COPIED_MS);
  });
  if (figure.dataset.kind !== "text") figure.append(button);
}

/** Whether the clipboard took it. Over plain HTTP there is none: the text is selected then. */
async function copied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return false;
  }
}

/* Search. The last question asked is the one whose answer is shown. */

const form = document.querySelector(".search form");
const field = byId("q");
const panel = byId("found");
let timer = null;
let asked = 0;

field.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(ask, SEARCH_AFTER_MS);
});
field.addEventListener("focus", () => {
  if (panel.childElementCount) panel.hidden = false;
});
document.addEventListener("keydown", onKey);
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".search")) panel.hidden = true;
});

async function ask() {
  const question = field.value.trim();
  const mine = ++asked;
  if (!question) return show([], "");
  const url = new URL(form.action);
  url.search = new URLSearchParams({ q: question, as: "json" });
  try {
    const answer = await fetch(url);
    if (!answer.ok) return;
    const { data } = await answer.json();
    if (mine === asked) show(data, question);
  } catch {
    // offline: Enter still asks for the page
  }
}

function show(results, question) {
  panel.replaceChildren(...results.map(entry));
  if (question && !results.length) panel.append(made("p", { textContent: "Nothing has all of these words." }));
  panel.hidden = !question;
  byId("found-status").textContent = question ? `${results.length} found` : "";
}

function entry({ title, page, url, excerpt }) {
  const of = title === page ? [] : [made("span", { textContent: page })];
  return made("a", { href: url }, made("strong", { textContent: title }), ...of, made("p", { textContent: excerpt }));
}

/** `/` goes to the field, arrows go through what was found, Escape leaves. */
function onKey(event) {
  const isTyping = event.target.matches("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    field.focus();
    field.select();
  } else if (event.key === "Escape" && event.target.closest(".search")) {
    field.focus(); // which shows what was found
    panel.hidden = true;
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.closest(".search") && !panel.hidden) {
    const stops = [field, ...panel.querySelectorAll("a")];
    const next = stops[stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  }
}

/* Where one is. The headings above the middle of the window have been read. */

const here = new Map([...document.querySelectorAll(".here a")].map((link) => [decodeURIComponent(link.hash.slice(1)), link]));

if (here.size) {
  const headings = [...here.keys()].map(byId).filter(Boolean);
  const mark = () => {
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top < innerHeight / 3);
    const current = here.get((passed.at(-1) ?? headings[0])?.id);
    for (const link of here.values()) {
      if (link === current) link.setAttribute("aria-current", "location");
      else link.removeAttribute("aria-current");
    }
  };
  let isWaiting = false;
  addEventListener("scroll", () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      mark();
    });
  }, { passive: true });
  mark();
}

/* Beside the text the contents are always open; on a phone they open when asked. */

const contents = document.querySelector("details.contents");
const isWide = matchMedia("(min-width: 52.01rem)");
const fit = () => {
  contents.open = isWide.matches;
};
isWide.addEventListener("change", fit);
fit();
const current = contents.querySelector('[aria-current="page"]');
if (current) contents.scrollTop = current.offsetTop - contents.clientHeight / 2;
