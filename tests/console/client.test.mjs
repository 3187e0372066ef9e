/** client.js against a server of these tests' own, which answers whatever a case wants: broken, late, twice. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { afterEach, beforeEach, test } from "node:test";

import { LLMJobs, LLMJobsError } from "../../llmjobs/static/llmjobs/client.js";

let server;
let llmjobs;
let requests; // {method, url, headers, body} of every request, in order
let answer; // (request, response, number of requests so far) => void

beforeEach(async () => {
  requests = [];
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => { body += chunk; });
    request.on("end", () => {
      const { method, url, headers } = request;
      requests.push({ method, url, headers, body });
      answer(requests.at(-1), response, requests.length);
    });
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  llmjobs = made();
});

const made = (options = {}) => new LLMJobs({ baseUrl: `http://127.0.0.1:${server.address().port}/`, apiKey: "llmj_key", WebSocket: null, ...options });

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const json = (response, status, value, headers = {}) => {
  response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(value));
};
const refuse = (response, status, code, extra = {}, headers = {}) => {
  json(response, status, { error: { code, message: `It is ${code}.`, type: "invalid_request_error", param: null, ...extra } }, headers);
};
const block = (seq, type, data) => `id: ${seq}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
const stream = (response, ...blocks) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  for (const each of blocks) response.write(each);
  return response;
};
const DONE = { id: "j", status: "completed", output_text: "ab" };
const all = async (events) => { const found = []; for await (const event of events) found.push(event); return found; };

test("submit sends the key, the body, and an idempotency key of its own", async () => {
  answer = (_, response) => json(response, 202, { id: "j" });
  assert.equal((await llmjobs.submit({ model: "m", input: "Hello" })).id, "j");
  const [{ method, url, headers, body }] = requests;
  assert.deepEqual([method, url, headers.authorization, JSON.parse(body)], ["POST", "/api/jobs", "Bearer llmj_key", { model: "m", input: "Hello" }]);
  assert.match(headers["idempotency-key"], /^[0-9a-f]{32}$/);
});

test("a submit whose answer was lost is repeated under the same idempotency key", async () => {
  answer = (_, response, count) => (count < 3 ? response.destroy() : json(response, 200, { id: "j" }));
  await llmjobs.submit({ model: "m", input: "Hello" });
  const keys = requests.map(({ headers }) => headers["idempotency-key"]);
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
});

test("two submits are two jobs", async () => {
  answer = (_, response) => json(response, 202, { id: "j" });
  await llmjobs.submit({ model: "m", input: "Hello" });
  await llmjobs.submit({ model: "m", input: "Hello" });
  assert.notEqual(requests[0].headers["idempotency-key"], requests[1].headers["idempotency-key"]);
});

test("submits that get no answer give up together, and say under which key each was sent", async () => {
  answer = (_, response) => response.destroy();
  const impatient = made({ patienceS: 0.3 });
  const errors = await Promise.all([1, 2, 3].map((n) => impatient.submit({ model: "m", input: "x" }, { idempotencyKey: `key-${n}` }).catch((caught) => caught)));
  for (const { constructor, status, code } of errors) assert.deepEqual([constructor, status, code], [LLMJobsError, 0, "connection_error"]);
  assert.deepEqual(errors.map(({ idempotencyKey }) => idempotencyKey), ["key-1", "key-2", "key-3"]);
  assert.ok(requests.length >= 2);
  assert.deepEqual(new Set(requests.map(({ headers }) => headers["idempotency-key"])), new Set(["key-1"]));
});

test("what the server refuses is told in its words, and not sent again", async () => {
  answer = (_, response) => refuse(response, 429, "queue_full", { param: "model" }, { "Retry-After": "12", "x-request-id": "req_1" });
  const error = await made({ queueMax: 0 }).submit({ model: "m", input: "x" }).catch((caught) => caught);
  const { name, status, code, message, param, retryAfter, requestId } = error;
  assert.deepEqual([name, status, code, message, param, retryAfter, requestId], ["LLMJobsError", 429, "queue_full", "It is queue_full.", "model", 12, "req_1"]);
  assert.equal(requests.length, 1);
});

test("a proxy's page of HTML is an LLMJobsError too", async () => {
  answer = (_, response) => response.writeHead(500, { "Content-Type": "text/html" }).end("<h1>Oops</h1>");
  const error = await llmjobs.get("j").catch((caught) => caught);
  assert.deepEqual([error.constructor, error.status, error.code], [LLMJobsError, 500, "http_error"]);
});

test("Retry-After may be a date, by the server's clock, however ours goes", async () => {
  const at = (ms) => new Date(ms).toUTCString();
  const anHourAgo = Date.now() - 3_600_000;
  answer = (_, response) => refuse(response, 429, "rate_limit_exceeded", {}, { "Retry-After": at(anHourAgo + 30_000), Date: at(anHourAgo) });
  const { retryAfter } = await llmjobs.get("j").catch((caught) => caught);
  assert.equal(retryAfter, 30);
});

test("a poll tells when the server wants to be asked again", async () => {
  answer = (_, response) => json(response, 200, { id: "j", status: "queued" }, { "Retry-After": "4" });
  assert.deepEqual(await llmjobs.poll("j"), { job: { id: "j", status: "queued" }, retryAfter: 4 });
});

test("wait asks until the job is terminal, also through a restart of the server", async () => {
  answer = (_, response, count) => {
    if (count === 1) json(response, 200, { id: "j", status: "running" });
    else if (count === 2) response.destroy();
    else if (count === 3) refuse(response, 503, "database_unavailable");
    else json(response, 200, { id: "j", status: "failed" });
  };
  assert.equal((await llmjobs.wait("j")).status, "failed");
  assert.equal(requests.length, 4);
  assert.match(requests[0].url, /^\/api\/jobs\/j\?wait=\d+$/);
});

test("wait ends at its timeout", async () => {
  answer = (_, response) => json(response, 200, { id: "j", status: "running" }, { "Retry-After": "30" });
  const error = await llmjobs.wait("j", { timeoutS: 0.2 }).catch((caught) => caught);
  assert.equal(error.code, "wait_timeout");
});

test("wait leaves a server that says nothing soon after its timeout, and asks for no longer than that", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let come;
  const asked = new Promise((resolve) => { come = resolve; });
  answer = come;
  let error;
  llmjobs.wait("j", { timeoutS: 0.001 }).catch((caught) => { error = caught; });
  await asked;
  let ms = 0;
  for (; !error && ms < 20_000; ms += 10) {
    context.mock.timers.tick(10);
    await new Promise(setImmediate);
  }
  assert.equal(error?.code, "wait_timeout", `after ${ms} ms`);
  assert.ok(Number(/wait=(.+)$/.exec(requests[0].url)[1]) <= 0.001, requests[0].url);
});

test("wait for a job that is not there is refused at once", async () => {
  answer = (_, response) => refuse(response, 404, "job_not_found");
  assert.equal((await llmjobs.wait("j").catch((caught) => caught)).status, 404);
  assert.equal(requests.length, 1);
});

test("a stream gives the events in order and ends with done", async () => {
  answer = (_, response) => stream(response, "retry: 1000\n\n", block(1, "status", { status: "running" }), ": keep-alive\n\n", block(2, "delta", { text: "ab" }), block(3, "done", DONE));
  const events = await all(llmjobs.stream("j"));
  assert.deepEqual(events.map(({ seq, type }) => [seq, type]), [[1, "status"], [2, "delta"], [3, "done"]]);
  assert.deepEqual(events[2].data, DONE);
});

test("a stream that breaks is resumed after the last event, without a gap or a repeat", async () => {
  const log = [block(1, "delta", { text: "a" }), block(2, "delta", { text: "b" }), block(3, "delta", { text: "c" }), block(4, "done", DONE)];
  answer = ({ url }, response, count) => {
    const after = Number(/after=(\d+)$/.exec(url)[1]);
    if (count === 1) stream(response).write(log.slice(0, 2).join(""), () => response.destroy());
    else if (count === 2) response.destroy();
    else if (count === 3) refuse(response, 502, "bad_gateway");
    else stream(response, ...log.slice(Math.max(0, after - 1))); // and the last one that was seen once more
  };
  const states = [];
  const events = await all(llmjobs.stream("j", { onState: (state) => states.push(state) }));
  assert.deepEqual(events.map(({ seq }) => seq), [1, 2, 3, 4]);
  assert.deepEqual(states, ["connecting", "live", "reconnecting", "reconnecting", "reconnecting", "live"]);
});

test("a stream is resumed from where it was", async () => {
  answer = ({ url }, response) => {
    if (!url.includes("/events")) json(response, 200, { id: "j", status: "running" });
    else if (url.endsWith("after=0")) stream(response, block(1, "delta", { text: "a" })).end();
    else stream(response, block(2, "done", DONE));
  };
  await all(llmjobs.stream("j"));
  assert.deepEqual(requests.map(({ url }) => url), ["/api/jobs/j/events?after=0", "/api/jobs/j", "/api/jobs/j/events?after=1"]);
});

test("events and letters may arrive in pieces", async () => {
  const bytes = Buffer.from(block(1, "delta", { text: "héllo — 月" }) + block(2, "done", DONE));
  answer = async (_, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    for (const byte of bytes) {
      response.write(Buffer.of(byte));
      await new Promise(setImmediate);
    }
  };
  assert.equal((await all(llmjobs.stream("j")))[0].data.text, "héllo — 月");
});

test("a stream of a job that had ended, resumed after its end, is empty", async () => {
  answer = ({ url }, response) => (url.includes("/events") ? response.writeHead(204).end() : json(response, 200, DONE));
  assert.deepEqual(await all(llmjobs.stream("j", { after: 9 })), []);
});

test("a done that a requeue has superseded does not end the stream", async () => {
  answer = (_, response) => stream(response, block(1, "done", { status: "dead", superseded: true }), block(2, "status", { status: "queued" }), block(3, "done", DONE));
  assert.equal((await all(llmjobs.stream("j"))).length, 3);
});

test("a stream of a stranger's job is refused at once", async () => {
  answer = (_, response) => refuse(response, 404, "job_not_found");
  const error = await all(llmjobs.stream("j")).catch((caught) => caught);
  assert.deepEqual([error.status, error.code, requests.length], [404, "job_not_found", 1]);
});

test("an abort ends the stream and its connection at once", async () => {
  const stopper = new AbortController();
  let isClosed;
  const closed = new Promise((resolve) => { isClosed = resolve; });
  answer = (_, response) => { stream(response, block(1, "delta", { text: "a" })); response.on("close", isClosed); };
  const events = llmjobs.stream("j", { signal: stopper.signal });
  await events.next();
  const next = events.next().catch((caught) => caught);
  stopper.abort();
  assert.equal((await next).name, "AbortError");
  await closed;
});

test("who leaves the loop leaves the server", async () => {
  let isClosed;
  const closed = new Promise((resolve) => { isClosed = resolve; });
  answer = (_, response) => { stream(response, block(1, "delta", { text: "a" })); response.on("close", isClosed); };
  for await (const event of llmjobs.stream("j")) {
    assert.equal(event.seq, 1);
    break;
  }
  await closed;
});

test("the stream of all jobs names the job of each event", async () => {
  const event = { job: "j", seq: 7, type: "delta", data: { text: "a" } };
  answer = (_, response) => stream(response, `id: 1700000000000\nevent: delta\ndata: ${JSON.stringify(event)}\n\n`);
  const events = llmjobs.streamAll();
  assert.deepEqual((await events.next()).value, event);
  assert.equal(requests[0].url, "/api/events");
  await events.return();
});

// WebSocket: a stand-in whose other end is a function, because Node 20 has none; the browser tests use a real one.

function webSockets(...scripts) {
  const opened = [];
  const sockets = {
    opened,
    unheard: 0, // errors to which nobody listened
    WebSocket: class {
      constructor(url, protocols) {
        opened.push({ url, protocols, socket: this });
        const script = scripts[opened.length - 1];
        setTimeout(() => script({
          open: () => this.onopen?.({}),
          send: (...events) => events.forEach((event) => this.onmessage?.({ data: JSON.stringify(event) })),
          close: (code, reason = "") => this.onclose?.({ code, reason }),
          error: () => { if (this.onerror) this.onerror({}); else sockets.unheard++; },
        }));
      }

      close() { this.isClosed = true; }
    },
  };
  return sockets;
}

const overSockets = (sockets) => new LLMJobs({ baseUrl: `http://127.0.0.1:${server.address().port}`, apiKey: "llmj_key", WebSocket: sockets.WebSocket });

test("a WebSocket carries the key as a subprotocol, and resumes after the last event", async () => {
  const sockets = webSockets(
    ({ open, send, close }) => { open(); send({ seq: 1, type: "delta", data: { text: "a" } }); close(1012); },
    ({ open, send, close }) => { open(); send({ seq: 2, type: "done", data: DONE }); close(1000); },
  );
  const events = await all(overSockets(sockets).stream("j"));
  assert.deepEqual(events.map(({ seq }) => seq), [1, 2]);
  assert.deepEqual(sockets.opened.map(({ url }) => url.replace(/^ws:\/\/[^/]+/, "")), ["/ws/jobs/j/?after=0", "/ws/jobs/j/?after=1"]);
  assert.deepEqual(sockets.opened[0].protocols, ["llmjobs", "llmj_key"]);
  assert.equal(requests.length, 0);
});

test("4404 is final", async () => {
  const sockets = webSockets(({ open, close }) => { open(); close(4404, "There is no such job."); });
  const error = await all(overSockets(sockets).stream("j")).catch((caught) => caught);
  assert.deepEqual([error.status, error.code, error.message], [404, "not_found", "There is no such job."]);
});

test("4408 (too slow) and 4503 (no database) are resumed, and all that came before them counts", async () => {
  const sockets = webSockets(
    ({ open, send, close }) => { open(); send({ seq: 1, type: "delta", data: { text: "a" } }); close(4408); },
    ({ open, close }) => { open(); close(4503); },
    ({ open, send }) => { open(); send({ seq: 2, type: "done", data: DONE }); },
  );
  const events = await all(overSockets(sockets).stream("j"));
  assert.deepEqual(events.map(({ seq }) => seq), [1, 2]);
  assert.match(sockets.opened[2].url, /after=1$/);
  assert.ok(sockets.opened[2].socket.isClosed);
});

test("where no WebSocket gets through, Server-Sent Events do", async () => {
  answer = (_, response) => stream(response, block(1, "done", DONE));
  const sockets = webSockets(({ close }) => close(1006));
  assert.equal((await all(overSockets(sockets).stream("j"))).length, 1);
  assert.equal(requests[0].url, "/api/jobs/j/events?after=0");
});

test("a WebSocket that has worked is not given up for a server that restarts", async () => {
  const sockets = webSockets(
    ({ open, close }) => { open(); close(1012); },
    ({ close }) => close(1006),
    ({ close }) => close(1006),
    ({ open, send }) => { open(); send({ seq: 1, type: "done", data: DONE }); },
  );
  assert.equal((await all(overSockets(sockets).stream("j"))).length, 1);
  assert.equal(requests.length, 0);
});

test("a server that opens and closes at once is asked more and more slowly", async () => {
  const shut = ({ open, close }) => { open(); close(4503); };
  const sockets = webSockets(shut, shut, shut, ({ open, send }) => { open(); send({ seq: 1, type: "done", data: DONE }); });
  const began = performance.now();
  await all(overSockets(sockets).stream("j"));
  assert.ok(performance.now() - began >= 125 + 250 + 500, `${performance.now() - began} ms`);
});

test("a close without done is an end where the job had ended before, and nothing came", async () => {
  answer = (_, response) => json(response, 200, DONE);
  const shut = ({ open, close }) => { open(); close(1000); };
  const sockets = webSockets(shut, shut);
  assert.deepEqual(await all(overSockets(sockets).stream("j", { after: 9 })), []);
  assert.deepEqual(requests.map(({ url }) => url), ["/api/jobs/j"]);
});

test("a stream that is closed while the job ends is whole all the same", async () => {
  const log = [block(1, "delta", { text: "a" }), block(2, "delta", { text: "b" }), block(3, "done", DONE)];
  answer = ({ url }, response) => {
    if (!url.includes("/events")) json(response, 200, DONE);
    else if (url.endsWith("after=0")) stream(response, log[0]).end(); // a reader who was too slow, a server that stops
    else stream(response, ...log.slice(1));
  };
  assert.deepEqual((await all(llmjobs.stream("j"))).map(({ seq }) => seq), [1, 2, 3]);
});

test("the errors of a socket are heard, also after it was given up: where nobody hears them, some end the program", async () => {
  const sockets = webSockets(
    ({ error, close }) => { error(); close(1006); },
    ({ open, send, error }) => { open(); send({ seq: 1, type: "done", data: DONE }); setTimeout(error); },
  );
  answer = (_, response) => response.destroy(); // what is tried beside them
  assert.equal((await all(overSockets(sockets).stream("j"))).length, 1);
  await new Promise((resolve) => { setTimeout(resolve, 10); });
  assert.equal(sockets.unheard, 0);
});

test("an abort holds back what had come already", async () => {
  const stopper = new AbortController();
  const deltas = [1, 2, 3].map((seq) => ({ seq, type: "delta", data: { text: "a" } }));
  const events = overSockets(webSockets(({ open, send }) => { open(); send(...deltas); })).stream("j", { signal: stopper.signal });
  await events.next();
  stopper.abort();
  assert.equal((await events.next().catch((caught) => caught)).name, "AbortError");
});

test("a reader who is slower than 10,000 events loses none: the socket is given up and resumed", async () => {
  const deltas = Array.from({ length: 15_000 }, (_, n) => ({ seq: n + 1, type: "delta", data: { text: "a" } }));
  const sockets = webSockets(
    ({ open, send }) => { open(); send(...deltas); },
    ({ open, send }) => { open(); send(...deltas.slice(10_000), { seq: 15_001, type: "done", data: DONE }); },
  );
  const events = await all(overSockets(sockets).stream("j"));
  assert.deepEqual(events.map(({ seq }) => seq), Array.from({ length: 15_001 }, (_, n) => n + 1));
  assert.match(sockets.opened[1].url, /after=10000$/);
});
