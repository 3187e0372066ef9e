/** The words of the page. */

import assert from "node:assert/strict";
import { test } from "node:test";

import * as display from "../../llmjobs/static/llmjobs/display.js";

const NOW = Date.parse("2026-11-21T12:00:00Z");
const at = (seconds) => new Date(NOW + seconds * 1000).toISOString();
const job = (fields) => ({
  status: "queued", position: null, eta_s: null, blocked_by: null, attempt: 0, failures: 0, max_attempts: 5, error: null,
  created_at: at(-10), available_at: at(-10), started_at: null, finished_at: null, ...fields,
});

test("ordinals are English", () => {
  const cases = { 1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 22: "22nd", 101: "101st", 1000: "1,000th" };
  for (const [number, words] of Object.entries(cases)) assert.equal(display.ordinal(Number(number)), words);
});

test("position 0 is the next to start", () => {
  assert.equal(display.place(job({ position: 2, eta_s: 4.2 }), NOW), "3rd in line, about 4 s");
  assert.equal(display.place(job({ position: 0, eta_s: 0.1 }), NOW), "Next in line, about 1 s");
});

test("a blocked job says why it waits, also for a reason that is new", () => {
  assert.equal(display.place(job({ position: 0, blocked_by: "no_worker" }), NOW), "Next in line, no worker is running");
  assert.equal(display.place(job({ blocked_by: "moon_phase" }), NOW), "Moon phase");
});

test("a running job that began anew says so", () => {
  assert.equal(display.place(job({ status: "running", attempt: 2, failures: 1 }), NOW), "Attempt 2: the one before broke off, and the text began anew.");
});

test("a job without a known place is in line", () => assert.equal(display.place(job({}), NOW), "In line"));

test("a scheduled job says when, and whether it is a retry", () => {
  assert.equal(display.place(job({ status: "scheduled", available_at: at(34) }), NOW), "Starts in 34 s at the earliest");
  assert.equal(display.place(job({ status: "scheduled", available_at: at(34), failures: 1 }), NOW), "Tries again in 34 s");
  assert.equal(display.place(job({ status: "scheduled", available_at: at(-1), failures: 1 }), NOW), "Tries again in a moment");
});

test("a job that no longer waits has no place", () => {
  for (const status of ["running", "completed", "failed", "dead", "cancelled", "expired"]) {
    assert.equal(display.place(job({ status, position: 3 }), NOW), "");
  }
});

test("durations grow in units, and never show 60 of one", () => {
  const cases = { 0.04: "0 s", 4.25: "4.3 s", 12: "12 s", 59.7: "1 min", 60: "1 min", 83: "1 min 23 s", 3599.6: "1 h", 3600: "1 h", 5400: "1 h 30 min", 7199: "2 h" };
  for (const [seconds, words] of Object.entries(cases)) assert.equal(display.duration(Number(seconds)), words);
});

test("small amounts keep two digits that matter", () => {
  const cases = [[0.000412, "$0.00041"], [0.0019, "$0.0019"], [0.25, "$0.25"], [12.5, "$12.50"], [0, "$0.00"], [0.00000001, "$0.00000001"], ["0.40", "$0.40"], [null, "–"], [undefined, "–"]];
  for (const [usd, words] of cases) assert.equal(display.money(usd), words);
});

test("tokens are read from either shape of usage", () => {
  assert.deepEqual(display.tokens({ prompt_tokens: 41, completion_tokens: 1180 }), { input: "41", output: "1,180" });
  assert.deepEqual(display.tokens({ input_tokens: 41, output_tokens: 0 }), { input: "41", output: "0" });
  assert.deepEqual(display.tokens(null), { input: "–", output: "–" });
});

test("ages are rounded to one unit", () => {
  const cases = [[-3, "just now"], [5, "just now"], [-12, "12 sec. ago"], [-125, "2 min. ago"], [-7300, "2 hr. ago"], [-86_400, "yesterday"]];
  for (const [seconds, words] of cases) assert.equal(display.ago(at(seconds), NOW), words);
});

test("times are counted to now while they pass, and stand still afterwards", () => {
  assert.deepEqual(display.times(job({}), NOW), { waited: "10 s", ran: "–" });
  assert.deepEqual(display.times(job({ status: "running", started_at: at(-4) }), NOW), { waited: "6 s", ran: "4 s" });
  assert.deepEqual(display.times(job({ status: "completed", started_at: at(-4), finished_at: at(-1) }), NOW), { waited: "6 s", ran: "3 s" });
  assert.deepEqual(display.times(job({ status: "cancelled", finished_at: at(-7) }), NOW), { waited: "3 s", ran: "–" });
});

test("a retry that waits does not count as running", () => {
  assert.equal(display.times(job({ status: "scheduled", started_at: at(-4) }), NOW).ran, "–");
});

test("a row without text says why", () => {
  assert.equal(display.wordless(job({})), "no text yet");
  assert.equal(display.wordless(job({ status: "completed" })), "no text");
  assert.equal(display.wordless(job({ status: "failed", error: { code: "context_length_exceeded", message: "…" } })), "context length exceeded");
  assert.equal(display.wordless(job({ status: "expired" })), "not started in time");
});

test("failures are told beside the attempts", () => {
  assert.equal(display.attempts(job({ attempt: 1 })), "1");
  assert.equal(display.attempts(job({ attempt: 5, failures: 2 })), "5 (2 failed)");
});

test("an error of a call says when to try again, if the server did", () => {
  assert.equal(display.callError({ message: "the queue is full", retryAfter: 12 }), "The queue is full. Try again in 12 s.");
  assert.equal(display.callError({ message: "No such model!", retryAfter: null }), "No such model!");
});

test("a model says what it costs, and that it is paused", () => {
  assert.equal(display.modelHint({ prices: { input_usd_per_mtok: 0.4, output_usd_per_mtok: 1.6 } }), "$0.40 in, $1.60 out, per million tokens.");
  assert.equal(display.modelHint({ prices: { input_usd_per_mtok: null, output_usd_per_mtok: null }, is_paused: true }), "Paused by an operator: its jobs wait.");
  assert.equal(display.modelHint(undefined), "");
});
