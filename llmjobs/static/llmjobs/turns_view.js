/**
 * What was said before the open job's answer: the turns of its request, and whether its conversation went on.
 *
 * Owns `#job-turns` and `#job-later`. A turn is text and nothing else; a long one shows its beginning, and all on demand.
 */

import { turns as turnsOf } from "./asked.js";
import { make, setHidden } from "./dom.js";
import { styled } from "./output.js";

const SHOWN_CHARS = 1200;
const SHOWN_LINES = 14;
const WHO = { user: "You", assistant: "Model", system: "System prompt", developer: "System prompt", tool: "Tool" };

/**
 * @param {{llmjobs: import("./client.js").LLMJobs, card: Object<string, HTMLElement>,
 *   atEnd: (change: () => void) => void}} page  `atEnd` keeps a reader at the end of the thread there
 */
export function createTurns({ llmjobs, card, atEnd }) {
  let loading = null; // the id of the job whose turns are shown, or asked for

  function clear() {
    loading = null;
    show([]);
    setHidden(card.later, true);
  }

  /** @returns {Promise<import("./asked.js").Asked|null>} null: it was erased, is being read, or can't be read now */
  async function load(id, job, signal) {
    if (loading === id || !job?.prompt_hash) return null;
    loading = id;
    try {
      const asked = await llmjobs.json(`/api/jobs/${encodeURIComponent(id)}/request`, { signal });
      if (loading !== id) return null;
      atEnd(() => show(turnsOf(asked)));
      findLater(id, job, signal);
      return asked;
    } catch {
      if (loading === id) loading = null; // the job itself is there; the next read of it asks again
      return null;
    }
  }

  function show(said) {
    card.turns.replaceChildren(...said.map(element));
    for (const part of [card.turns, card.who]) setHidden(part, said.length === 0);
  }

  async function findLater(id, job, signal) {
    const conversation = job.metadata?.conversation;
    if (!conversation) return;
    const { data } = await llmjobs.list({ "metadata.conversation": conversation, limit: 1 }, { signal }).catch(() => ({ data: [] }));
    const isLater = loading === id && data.length > 0 && data[0].id > id; // UUIDv7: the greater is the younger
    setHidden(card.later, !isLater);
    if (isLater) card.later.querySelector("a").href = `#job=${data[0].id}`;
  }

  /** Scrolls to the prompt that is answered here. */
  function showLast() {
    const last = card.turns.lastElementChild;
    card.thread.scrollTop = last ? last.offsetTop - card.thread.offsetTop - card.thread.clientTop : 0;
  }

  return { clear, load, showLast };
}

function element({ role, text }) {
  const body = make("div", { class: "turn-text", dir: "auto" });
  const turn = make("li", { class: "turn", "data-role": role }, make("p", { class: "turn-who" }, WHO[role] ?? role), body);
  const short = beginning(text);
  body.append(...styled(short));
  if (short.length < text.length) {
    const more = make("button", { type: "button", class: "link" }, "Show all");
    more.addEventListener("click", () => { body.replaceChildren(...styled(text)); more.remove(); });
    turn.append(more);
  }
  return turn;
}

function beginning(text) {
  const lines = text.split("\n", SHOWN_LINES + 1);
  const cut = (lines.length > SHOWN_LINES ? lines.slice(0, SHOWN_LINES).join("\n") : text).slice(0, SHOWN_CHARS);
  return cut.length > text.length - 80 ? text : cut; // a button that shows three more words is a nuisance
}
