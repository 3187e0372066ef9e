/**
 * Whether the page reaches the server: the indicator in the header, the notice of being offline, the end of a session.
 *
 * Owns `#connection`, `#offline-notice` and `#session-notice`. Nothing here reconnects: client.js does.
 */

import { byId, setHidden, setText } from "./dom.js";

const WORSE_FIRST = ["reconnecting", "connecting"];

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
