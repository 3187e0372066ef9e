/** The line of client.js: what waits while a server says 429, or says nothing. The server is these tests' own. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { afterEach, beforeEach, test } from "node:test";

import { LLMJobs } from "../../llmjobs/static/llmjobs/client.js";

let server;
let requests; // {name, key, at_ms} of every submit, in the order in which they came
let answer; // (name, response, number of requests so far) => void

beforeEach(async () => {
  requests = [];
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => { body += chunk; });
    request.on("end", () => {
      const lines = body.split("\n").map((line) => JSON.parse(line));
      requests.push({ url: request.url, lines, name: lines[0].input, key: request.headers["idempotency-key"], at_ms: performance.now() });
      answer(requests.at(-1).name, response, requests.length);
    });
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
});

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const made = (options = {}) => new LLMJobs({ baseUrl: `http://127.0.0.1:${server.address().port}`, apiKey: "llmj_key", ...options });
const json = (response, status, value, headers = {}) => {
  response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(value));
};
const take = (name, response) => json(response, 202, { id: name });
const full = (response, retryAfter = "0.3", code = "queue_full") => {
  json(response, 429, { error: { code, message: "No room.", type: "rate_limit_error", param: null } }, { "Retry-After": retryAfter });
};
const job = (name, priority) => ({ model: "m", input: name, ...(priority ? { priority } : {}) });
const caught = (promise) => promise.then(() => null, (error) => error);
const names = () => requests.map(({ name }) => name);

test("what is refused for now waits as long as the server says, and is sent again under its key", async () => {
  answer = (name, response, count) => (count === 1 ? full(response) : take(name, response));
  assert.equal((await made().submit(job("a"))).id, "a");
  const [first, second] = requests;
  assert.equal(first.key, second.key);
  assert.ok(second.at_ms - first.at_ms >= 300, `after ${second.at_ms - first.at_ms} ms`);
});

test("the more urgent go first, then those that were asked for first, also those that come later", async () => {
  let isFull = true;
  answer = (name, response) => (isFull ? full(response) : take(name, response));
  const llmjobs = made();
  const all = ["a", "b"].map((name) => llmjobs.submit(job(name)));
  all.push(llmjobs.submit(job("background", "background")), llmjobs.submit(job("high", 1)));
  while (requests.length < 1) await new Promise(setImmediate);
  assert.deepEqual(names(), ["high"], "one found out for all");
  isFull = false;
  all.push(llmjobs.submit(job("c")), llmjobs.submit(job("critical", "critical")), llmjobs.submit(job("high too", "high")));
  await Promise.all(all);
  assert.deepEqual(names().slice(1), ["critical", "high", "high too", "a", "b", "c", "background"]);
});

test("after a wait one is sent alone, and the rest once it was taken", async () => {
  const underWay = [];
  answer = (name, response, count) => {
    if (count <= 3) full(response);
    else underWay.push([name, () => take(name, response)]);
  };
  const llmjobs = made({ concurrency: 3 });
  const all = Promise.all(["a", "b", "c", "d"].map((name) => llmjobs.submit(job(name))));
  const until = async (count) => { while (underWay.length < count) await new Promise((resolve) => { setTimeout(resolve, 5); }); };
  await until(1);
  const alone = underWay.map(([name]) => name);
  underWay.forEach(([, go]) => go());
  await until(4);
  underWay.slice(1).forEach(([, go]) => go());
  await all;
  assert.equal(alone.length, 1, `${alone}`);
});

test("a budget that is spent is told at once, and holds nobody up", async () => {
  answer = (name, response) => {
    if (name !== "dear") take(name, response);
    else json(response, 429, { error: { code: "insufficient_quota", message: "Spent." } }, { "x-should-retry": "false" });
  };
  const llmjobs = made();
  const [dear, cheap] = await Promise.all([caught(llmjobs.submit(job("dear"))), llmjobs.submit(job("cheap"))]);
  assert.deepEqual([dear.code, dear.isTemporary, cheap.id], ["insufficient_quota", false, "cheap"]);
});

test("a 429 that does not say when to come again is told at once", async () => {
  answer = (_, response) => json(response, 429, { error: { code: "slow_down", message: "Slow down." } });
  assert.equal((await caught(made().submit(job("a")))).code, "slow_down");
  assert.equal(requests.length, 1);
});

test("a full line rejects at once, and takes again once there is room", async () => {
  let isFull = true;
  answer = (name, response) => (isFull ? full(response, "0.5") : take(name, response));
  const llmjobs = made({ queueMax: 2 });
  const first = llmjobs.submit(job("a"));
  const second = llmjobs.submit(job("b"));
  const refused = await caught(llmjobs.submit(job("c")));
  assert.deepEqual([refused.code, refused.status, refused.isTemporary], ["client_queue_full", 0, true]);
  isFull = false;
  await Promise.all([first, second]);
  assert.equal((await llmjobs.submit(job("d"))).id, "d");
  assert.ok(!names().includes("c"));
});

test("an abort takes a submit out of the line, and the others move up", async () => {
  answer = (name, response, count) => (count === 1 ? full(response) : take(name, response));
  const llmjobs = made();
  const stopper = new AbortController();
  const told = [];
  const first = llmjobs.submit(job("a"));
  const second = caught(llmjobs.submit(job("b"), { signal: stopper.signal }));
  const third = llmjobs.submit(job("c"), { onWait: ({ before }) => told.push(before) });
  while (requests.length < 1) await new Promise(setImmediate);
  stopper.abort();
  assert.equal((await second).name, "AbortError");
  await Promise.all([first, third]);
  assert.deepEqual(names(), ["a", "a", "c"]);
  assert.equal(told.at(-1), 1);
  assert.equal((await caught(llmjobs.submit(job("d"), { signal: stopper.signal }))).name, "AbortError");
});

test("many may share a signal, and leave together", async () => {
  answer = (name, response, count) => (count === 1 ? full(response) : take(name, response));
  const warnings = [];
  const warned = (warning) => warnings.push(warning.message);
  globalThis.process.on("warning", warned);
  const llmjobs = made();
  const stopper = new AbortController();
  const first = llmjobs.submit(job("a"));
  const others = Array.from({ length: 30 }, (_, n) => caught(llmjobs.submit(job(`${n}`), { signal: stopper.signal })));
  while (requests.length < 1) await new Promise(setImmediate);
  stopper.abort();
  assert.ok((await Promise.all(others)).every(({ name }) => name === "AbortError"));
  await first;
  globalThis.process.off("warning", warned);
  assert.deepEqual([names(), warnings], [["a", "a"], []]);
});

test("who waits is told how many go before, until when, and why", async () => {
  answer = (name, response, count) => (count === 1 ? full(response, "0.4", "rate_limit_exceeded") : take(name, response));
  const llmjobs = made();
  const told = [];
  const all = [llmjobs.submit(job("a")), llmjobs.submit(job("b"), { onWait: (state) => told.push(state) })];
  while (llmjobs.waiting.reason === null) await new Promise(setImmediate);
  const { count, until, reason } = llmjobs.waiting;
  assert.deepEqual([count, reason], [2, "rate_limit_exceeded"]);
  assert.ok(until > new Date() && until < new Date(Date.now() + 600), `${until?.toISOString()}`);
  await Promise.all(all);
  const closed = told.find((state) => state.until);
  assert.deepEqual([closed.before, closed.reason, closed.until], [1, "rate_limit_exceeded", until]);
  assert.deepEqual(llmjobs.waiting, { count: 0, until: null, reason: null });
});

test("an error of who listens ends that submit, and no other", async () => {
  answer = (name, response, count) => (count === 1 ? full(response) : take(name, response));
  const llmjobs = made();
  const first = llmjobs.submit(job("a"));
  const second = caught(llmjobs.submit(job("b"), { onWait: () => { throw new RangeError("mine"); } }));
  assert.equal((await second).constructor, RangeError);
  assert.equal((await first).id, "a");
});

test("nothing passes a submit whose answer was lost", async () => {
  answer = (name, response, count) => (count <= 2 ? response.destroy() : take(name, response));
  const llmjobs = made();
  await Promise.all(["a", "b", "c"].map((name) => llmjobs.submit(job(name))));
  assert.deepEqual(names(), ["a", "a", "a", "b", "c"]);
  assert.equal(new Set(requests.map(({ key }) => key)).size, 3);
});

test("a call that is never answered is given up, and sent again", async () => {
  answer = (name, response, count) => { if (count > 1) take(name, response); };
  const began = performance.now();
  assert.equal((await made({ timeoutS: 0.3 }).submit(job("a"))).id, "a");
  assert.ok(performance.now() - began >= 300);
  assert.equal(requests[0].key, requests[1].key);
});

test("an answer that stops in its middle is asked for again", async () => {
  answer = (name, response, count) => {
    if (count > 1) take(name, response);
    else response.writeHead(202, { "Content-Type": "application/json" }).write('{"id": ');
  };
  assert.equal((await made({ timeoutS: 0.3 }).submit(job("a"))).id, "a");
});

test("a server that stays away for good is given up for all at the same time", async () => {
  answer = (_, response) => response.destroy();
  const llmjobs = made({ patienceS: 0.5 });
  const began = performance.now();
  const errors = await Promise.all(Array.from({ length: 50 }, (_, n) => caught(llmjobs.submit(job(`${n}`)))));
  assert.ok(errors.every(({ code }) => code === "connection_error"));
  assert.ok(performance.now() - began < 5_000, "each waited for the one before it");
});

test("what changes after the call changes nothing of what is sent", async () => {
  answer = take;
  const submission = job("before");
  const submitted = made().submit(submission);
  submission.input = "after";
  assert.equal((await submitted).id, "before");
});

const REFUSED = { error: { code: "queue_full", message: "No room.", type: "rate_limit_error", param: null }, http_status: 429, retry_after_s: 0.3 };
const BAD = { error: { code: "model_not_found", message: "There is no such model.", type: "invalid_request_error", param: "model" }, http_status: 404 };
const lines = (response, ...answers) => {
  response.writeHead(200, { "Content-Type": "application/jsonl" }).end(answers.map((each, index) => `${JSON.stringify({ line: index + 1, ...each })}\n`).join(""));
};
const taken = (id) => ({ id, object: "job", status: "queued" });

test("many go in one request; what was not taken is sent again, under the same keys, and a bad one holds nobody up", async () => {
  answer = (_, response, count) => {
    if (count === 1) lines(response, taken("a"), BAD, REFUSED, REFUSED);
    else if (count === 2) lines(response, { ...taken("c"), idempotent_replayed: true }); // and the connection ended
    else lines(response, taken("d"));
  };
  const progress = [];
  const results = await made().submitMany(["a", "b", "c", "d"].map((name) => job(name)), { onProgress: (each) => progress.push(each) });
  assert.deepEqual(results.map(({ id, isReplayed, error }) => [id, isReplayed, error?.code ?? null]), [
    ["a", false, null], [null, false, "model_not_found"], ["c", true, null], ["d", false, null],
  ]);
  assert.deepEqual(requests.map(({ url, lines: sent }) => [url, sent.map(({ input }) => input).join("")]), [
    ["/api/jobs/bulk", "abcd"], ["/api/jobs/bulk", "cd"], ["/api/jobs/bulk", "d"],
  ]);
  assert.equal(new Set(requests.flatMap(({ lines: sent }) => sent.map((each) => each.idempotency_key))).size, 4);
  assert.deepEqual(progress, [{ done: 4, total: 4 }]);
});

test("many more than a request holds go in several, in order, and what could not be sent says so", async () => {
  answer = (_, response, count) => (count === 1 ? lines(response, ...requests[0].lines.map(({ input }) => taken(input))) : response.destroy());
  const results = await made({ patienceS: 0.2 }).submitMany(Array.from({ length: 1_500 }, (_, n) => job(`${n}`)));
  assert.deepEqual(results.slice(0, 1_000).map(({ id }) => id), Array.from({ length: 1_000 }, (_, n) => `${n}`));
  assert.ok(results.slice(1_000).every(({ id, error }) => id === null && error.code === "connection_error"));
  assert.equal(results[1_400].error.idempotencyKey, requests[1].lines[400].idempotency_key);
});

test("many that may not be submitted at all are refused as a whole", async () => {
  answer = (_, response) => json(response, 401, { error: { code: "invalid_api_key", message: "No." } });
  assert.equal((await caught(made().submitMany([job("a"), job("b")]))).code, "invalid_api_key");
  assert.deepEqual(await made().submitMany([]), []);
});

test("options that can't be meant are refused, by name", () => {
  for (const [name, value] of [["queueMax", -1], ["concurrency", 0], ["timeoutS", "30"], ["patienceS", Number.NaN]]) {
    assert.throws(() => made({ [name]: value }), new RegExp(`expected ${name} to be a number`));
  }
});
