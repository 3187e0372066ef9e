/**
 * What the browser keeps for the page: choices for good (localStorage), drafts while the tab lives (sessionStorage).
 *
 * Both are kept for one user: who logs in next in the same tab finds nothing of the one before. A browser that keeps
 * nothing (a private window, a full store) loses comfort, and nothing else: no call here throws.
 */

const CHOICES = "llmjobs.choices.";
const DRAFT = "llmjobs.draft.";

/** @param {string} user */
export function createMemory(user, { local = globalThis.localStorage, session = globalThis.sessionStorage } = {}) {
  let isOver = false; // logged out: what the page still wants to keep as it goes is not kept

  quietly(() => keysOf(session).filter((key) => key.startsWith(DRAFT) && key !== DRAFT + user).forEach((key) => session.removeItem(key)));

  return {
    /** @returns {Object<string, any>} */
    choices: () => read(local, CHOICES + user),
    choose: (changes) => write(local, CHOICES + user, { ...read(local, CHOICES + user), ...changes }),
    /** @returns {Object<string, any>} */
    draft: () => read(session, DRAFT + user),
    /** False where it could not be kept. */
    keepDraft: (draft) => !isOver && write(session, DRAFT + user, draft),
    dropDraft: () => quietly(() => session.removeItem(DRAFT + user)),
    end() {
      isOver = true;
      this.dropDraft();
    },
  };
}

function keysOf(store) {
  return Array.from({ length: store.length }, (_, index) => store.key(index));
}

function read(store, key) {
  const found = quietly(() => JSON.parse(store.getItem(key)));
  return found !== null && typeof found === "object" ? found : {};
}

function write(store, key, value) {
  return quietly(() => { store.setItem(key, JSON.stringify(value)); return true; }) ?? false;
}

function quietly(action) {
  try {
    return action() ?? null;
  } catch {
    return null; // the store is forbidden, full, or holds what somebody else wrote
  }
}
