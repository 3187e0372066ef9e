/**
 * In whose name the page calls: one LLMJobs for each of the user's clients, made once, so that what waits its turn
 * (after a 429) waits in one line.
 *
 * Only who belongs to several clients names one: then `LLMJobs-Client` says who pays.
 */

import { LLMJobs } from "./client.js";

/** @param {string[]} clients the user's @param {import("./client.js").LLMJobs} general for all that no client need be named for */
export function createCallers(clients, general) {
  const made = new Map();

  /** @param {string} name @returns {LLMJobs} */
  return function clientFor(name) {
    if (clients.length < 2 || !clients.includes(name)) return general;
    if (!made.has(name)) made.set(name, new LLMJobs({ client: name }));
    return made.get(name);
  };
}
