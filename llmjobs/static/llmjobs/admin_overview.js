/* Keeps the overview fresh while somebody looks. The server draws everything: the page asks for itself every 15 seconds
   and takes over what differs, node by node, so that focus, selection and what was opened stay. Between, the operators'
   WebSocket brings the numbers of now each second; where there is none, the page asks every 5 seconds instead. It
   says which of these it does, and since when it can do neither. */

import { setText } from "./dom.js";

const EVERY_MS = 15_000;
const POLL_MS = 5_000;
const SOON_MS = 500; // after an incident opened or closed
const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_MOST_MS = 30_000;
const REFUSED_MS = 300_000; // it says that this user may not: asked again once in a while

const root = document.querySelector("[data-llmjobs-overview]");
if (root) start(root);

function start(root) {
  const state = root.querySelector("[data-state]");
  const words = root.querySelector("[data-state-words]");
  let socket = null;
  let isLive = false;
  let failures = 0;
  let offlineSince = "";
  let askedAt_ms = performance.now();
  let latest = null; // the WebSocket's last numbers, newer than the page's
  let asking = null;
  let refreshTimer = 0;
  let socketTimer = 0;

  function say() {
    const [name, text] = offlineSince
      ? ["offline", `Offline since ${offlineSince}, as of`]
      : isLive ? ["live", "Live, as of"] : ["polling", `Polling every ${POLL_MS / 1000} s, as of`];
    state.dataset.state = name;
    setText(words, text);
  }

  async function refresh() {
    askedAt_ms = performance.now();
    asking = new AbortController();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, signal: asking.signal, cache: "no-store" });
      if (answer.redirected) return void location.reload(); // logged out: the log-in page, and back here
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of root.querySelectorAll("[data-part]")) {
        const next = fresh.querySelector(`[data-llmjobs-overview] [data-part="${part.dataset.part}"]`);
        if (next) patch(part, next);
      }
      offlineSince = "";
      if (isLive && latest) show(root, latest);
      pointAgain();
    } catch (error) {
      if (error.name === "AbortError") return;
      offlineSince ||= clock(new Date());
    } finally {
      asking = null;
      say();
    }
  }

  function schedule(wait_ms = isLive ? EVERY_MS : POLL_MS) {
    clearTimeout(refreshTimer);
    if (document.hidden) return;
    const due_ms = Math.max(0, askedAt_ms + wait_ms - performance.now());
    refreshTimer = setTimeout(() => refresh().finally(() => schedule()), due_ms);
  }

  function connect() {
    clearTimeout(socketTimer);
    if (!root.dataset.socket || socket || document.hidden) return;
    const url = new URL(root.dataset.socket, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const opened = (socket = new WebSocket(url));
    opened.onmessage = ({ data }) => {
      const before = latest;
      latest = JSON.parse(data);
      failures = 0;
      if (!isLive) {
        isLive = true;
        say();
        schedule();
      }
      show(root, latest);
      if (before && String(before.incidents) !== String(latest.incidents)) schedule(SOON_MS);
    };
    opened.onclose = ({ code }) => {
      if (socket !== opened) return; // closed by us: nobody looks
      socket = latest = null;
      isLive = false;
      const wait_ms = code === 4404 || code === 4403 ? REFUSED_MS : Math.min(BACKOFF_FIRST_MS * 2 ** failures++, BACKOFF_MOST_MS);
      socketTimer = setTimeout(connect, wait_ms * (0.75 + Math.random() / 2));
      say();
      schedule();
    };
  }

  function rest() {
    clearTimeout(refreshTimer);
    clearTimeout(socketTimer);
    asking?.abort();
    const open = socket;
    socket = latest = null;
    isLive = false;
    open?.close();
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return rest();
    failures = 0;
    connect();
    schedule(0);
  });
  window.addEventListener("pagehide", rest);
  window.addEventListener("pageshow", ({ persisted }) => persisted && (connect(), schedule(0)));
  const pointAgain = readValuesUnder(root);
  say();
  connect();
  schedule();
}

/* The numbers of now. */

function show(root, statistics) {
  const found = new Map([
    ["queued", count(statistics.queued)],
    ["running", count(statistics.running)],
    ["scheduled", count(statistics.by_status.scheduled)],
    ["oldest", duration(statistics.oldest_queued_s)],
    ["wait_p50", duration(statistics.wait_s.p50)],
    ["wait_p95", duration(statistics.wait_s.p95)],
  ]);
  for (const tier of statistics.tiers ?? []) {
    found.set(`queued of ${tier.name}`, count(tier.queued));
    found.set(`running of ${tier.name}`, count(tier.running));
    found.set(`oldest of ${tier.name}`, duration(tier.oldest_s));
  }
  for (const place of root.querySelectorAll("[data-live]")) {
    const text = found.get(place.dataset.live);
    if (text !== undefined) setText(place, text);
  }
}

/** As cells.duration says it: "0.4 s", "12 s", "3 min 5 s", "2 h 10 min", "4 d 1 h". */
export function duration(length_s) {
  if (length_s === null || length_s === undefined) return "–";
  if (length_s < 10) return `${Math.max(0, length_s).toFixed(1)} s`;
  const whole_s = Math.round(length_s);
  for (const [unit_s, unit, below_s, below] of [[86_400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole_s < unit_s) continue;
    const rest = Math.floor((whole_s % unit_s) / below_s);
    return rest ? `${Math.floor(whole_s / unit_s)} ${unit} ${rest} ${below}` : `${Math.floor(whole_s / unit_s)} ${unit}`;
  }
  return `${whole_s} s`;
}

export function count(number) {
  return number.toLocaleString("en-US");
}

function clock(at) {
  return at.toTimeString().slice(0, 8);
}

/* What differs is taken over; what is the same stays the same node. */

function patch(old, next) {
  if (old.isEqualNode(next)) return;
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) return void old.replaceWith(next.cloneNode(true));
  if (old.nodeType !== Node.ELEMENT_NODE) return void (old.nodeValue = next.nodeValue);
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const fresh = [...next.childNodes];
  const kept = [...old.childNodes];
  fresh.forEach((child, number) => (kept[number] ? patch(kept[number], child) : old.append(child.cloneNode(true))));
  kept.slice(fresh.length).forEach((child) => child.remove());
}

/* A chart's values at the moment under the pointer, from the table below; away from it, those of now. */

function readValuesUnder(root) {
  let pointed = null; // {figure, share}: where along the figure's lines
  const rows = () => root.querySelector('[data-part="numbers"]').rows;

  function put({ figure, share }) {
    const table = rows();
    const row = table[Math.round(share * (table.length - 1))];
    if (!row) return;
    setText(figure.querySelector("[data-at]"), row.cells[0].textContent);
    for (const value of figure.querySelectorAll("[data-column]")) {
      value.dataset.now ??= value.textContent;
      setText(value, row.cells[Number(value.dataset.column) + 1].textContent);
    }
    const svg = figure.querySelector(".llmjobs-chart");
    const line = svg.querySelector(".llmjobs-cursor");
    const x = (Number(svg.dataset.left) + share * (svg.dataset.right - svg.dataset.left)) * svg.viewBox.baseVal.width;
    for (const name of ["x1", "x2"]) line.setAttribute(name, x);
    line.setAttribute("visibility", "visible");
  }

  function leave() {
    if (!pointed) return;
    const { figure } = pointed;
    pointed = null;
    setText(figure.querySelector("[data-at]"), "");
    figure.querySelector(".llmjobs-cursor").setAttribute("visibility", "hidden");
    for (const value of figure.querySelectorAll("[data-column]")) {
      if (value.dataset.now !== undefined) setText(value, value.dataset.now);
      delete value.dataset.now;
    }
  }

  root.addEventListener("pointermove", ({ target, clientX }) => {
    const svg = target.closest?.(".llmjobs-chart");
    const figure = svg?.closest("[data-chart]");
    if (figure !== pointed?.figure) leave();
    if (!figure) return;
    const { left, width } = svg.getBoundingClientRect();
    const along = (clientX - left) / width;
    const share = (along - svg.dataset.left) / (svg.dataset.right - svg.dataset.left);
    pointed = { figure, share: Math.min(1, Math.max(0, share)) };
    put(pointed);
  });
  root.addEventListener("pointerleave", leave);
  return () => pointed && put(pointed);
}
