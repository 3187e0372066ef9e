/**
 * Whether the page reaches the server: the indicator in the header, the notice of being offline, the end of a session,
 * which is one for all tabs.
 *
 * Owns `#connection`, `#offline-notice` and `#session-notice`. Nothing here reconnects: client.js does.
 */

import { byId, setHidden, setText } from "./dom.js";

const WORSE_FIRST = ["reconnecting", "connecting"];
const LOGOUT_MS = 500; // the tab that logs out has only begun to when it tells the others
const LOGOUT_TRIES = 20;

export function createConnection() {
  const states = new Map(); // by the name of what is followed

  function render() {
    const isOffline = navigator.onLine === false;
    const worst = WORSE_FIRST.find((state) => [...states.values()].includes(state)) ?? "live";
    const state = isOffline ? "offline" : worst;
    byId("connection").dataset.state = state;
    setText(byId("connection-text"), state === "live" || isOffline ? state : `${state}…`);
    setHidden(byId("offline-notice"), !isOffline);
  }

  /** What follows something reports here: "connecting", "live" or "reconnecting". The indicator shows the worst. */
  function reporter(name) {
    return (state) => { states.set(name, state); render(); };
  }

  addEventListener("online", render);
  addEventListener("offline", render);
  render();
  return { reporter };
}

/** Shows the way back, to this very job, where an error says that the session has ended. */
export function isSessionEnd(error) {
  if (error.status !== 401) return false;
  const link = byId("session-notice").querySelector("a");
  link.href = `${link.pathname}?next=${encodeURIComponent(location.pathname + location.search)}${location.hash}`;
  setHidden(byId("session-notice"), false);
  return true;
}

/**
 * Who logs out in one tab is logged out in all: the others let go of what they show, live connections included, once the
 * server says the same.
 * @param {{llmjobs: import("./client.js").LLMJobs, form: HTMLFormElement, memory: ReturnType<import("./remembered.js").createMemory>}} page
 */
export function logOutTogether({ llmjobs, form, memory }) {
  const tabs = new BroadcastChannel("llmjobs.logout");
  form.addEventListener("submit", () => { memory.end(); tabs.postMessage(null); });
  tabs.addEventListener("message", async () => {
    for (let tries = 0; tries < LOGOUT_TRIES; tries++) {
      await new Promise((resolve) => { setTimeout(resolve, LOGOUT_MS); });
      const error = await llmjobs.json("/api/me").then(() => null, (each) => each);
      if (error?.status !== 401) continue;
      memory.end();
      return location.reload(); // to the log-in, and from there back to here
    }
  });
}
