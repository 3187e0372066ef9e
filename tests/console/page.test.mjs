/** What the page asks, says and keeps: its pure modules. */

import assert from "node:assert/strict";
import { test } from "node:test";

import * as asked from "../../llmjobs/static/llmjobs/asked.js";
import * as display from "../../llmjobs/static/llmjobs/display.js";
import * as months from "../../llmjobs/static/llmjobs/months.js";
import { cutOf, sections } from "../../llmjobs/static/llmjobs/output.js";
import { createMemory } from "../../llmjobs/static/llmjobs/remembered.js";
import * as snippets from "../../llmjobs/static/llmjobs/snippets.js";

const ID = "019a0000-0000-7000-8000-000000000001";
const chat = (messages, fields = {}) => ({
  id: ID, endpoint: asked.CHAT, model: "m", priority: "high", body: { messages, ...fields.body }, options: {}, metadata: {}, ...fields.job,
});
const user = (content) => ({ role: "user", content });
const form = (fields) => ({ model: "m", priority: "normal", prompt: "And then?", system: "", temperature: "", maxOutput: "", isJson: false, timeoutS: "", ...fields });

test("the turns of every shape of request are read as text", () => {
  const cases = [
    [{ messages: [{ role: "system", content: "Be brief." }, user("Hi")] }, [["system", "Be brief."], ["user", "Hi"]]],
    [{ messages: [user([{ type: "text", text: "What is this?" }, { type: "image_url", image_url: {} }])] }, [["user", "What is this?\n[image_url]"]]],
    [{ messages: [{ role: "assistant", content: null, tool_calls: [{ type: "function", function: { name: "look" } }] }] }, [["assistant", "[calls look]"]]],
    [{ instructions: "Be brief.", input: "Hi" }, [["system", "Be brief."], ["user", "Hi"]]],
    [{ input: [user("Hi")] }, [["user", "Hi"]]],
    [{ input: ["one", "two"] }, [["user", "one\ntwo"]]],
    [{}, []],
  ];
  for (const [body, expected] of cases) {
    assert.deepEqual(asked.turns({ body }).map(({ role, text }) => [role, text]), expected);
  }
});

test("a reply sends all that was said, and names the conversation", () => {
  const first = chat([{ role: "system", content: "Be brief." }, user("Hi")], { body: { tools: [1], temperature: 1 } });
  const job = { id: ID, metadata: { conversation: "abc", turn: "3" } };
  const sent = asked.submission(form({ system: "not sent twice", temperature: "0" }), asked.replyTo(job, first, "Hello."));
  assert.deepEqual(sent.body.messages, [...first.body.messages, { role: "assistant", content: "Hello." }, user("And then?")]);
  assert.deepEqual(sent.metadata, { conversation: "abc", turn: "4" });
  assert.deepEqual([sent.body.tools, sent.body.temperature], [[1], 0]);
});

test("a turn that got no answer is left out of what follows", () => {
  const context = asked.replyTo({ id: ID, metadata: { conversation: "abc", turn: "2" } }, chat([user("a"), { role: "assistant", content: "b" }, user("c")]), "");
  assert.deepEqual([context.before, context.turn], [[user("a"), { role: "assistant", content: "b" }], 2]);
});

test("a job that was asked alone becomes the first turn of a conversation of its own name", () => {
  const sent = asked.submission(form(), asked.replyTo({ id: ID, metadata: {} }, chat([user("Hi")]), "Hello."));
  assert.deepEqual(sent.metadata, { conversation: ID, turn: "2" });
});

test("an edit says again what came before the turn, and its system prompt once", () => {
  const request = chat([{ role: "system", content: "Be brief." }, user("a"), { role: "assistant", content: "b" }, user("c")], { body: { max_tokens: 9, response_format: { type: "json_object" } } });
  assert.deepEqual(asked.formOf(request), { prompt: "c", system: "Be brief.", temperature: "", maxOutput: 9, isJson: true });
  const sent = asked.submission(form({ prompt: "C", system: "Be brief.", maxOutput: "9" }), asked.editOf({ id: ID, metadata: {} }, request));
  assert.deepEqual(sent.body, { messages: [...request.body.messages.slice(0, 3), user("C")], max_completion_tokens: 9 });
  assert.equal(sent.metadata.edit_of, ID);
});

test("empty fields of the form are not sent, and a zero is", () => {
  assert.deepEqual(asked.submission(form(), asked.fresh()), { model: "m", priority: "normal", body: { messages: [user("And then?")] }, metadata: {} });
  assert.equal(asked.submission(form({ temperature: "0" }), asked.fresh()).body.temperature, 0);
  assert.equal(asked.submission(form({ timeoutS: "30" }), asked.fresh()).timeout_s, 30);
});

test("only a chat that ends with a person's words goes on", () => {
  assert.equal(asked.canGoOn(chat([user("Hi")])), true);
  assert.equal(asked.canGoOn(chat([{ role: "tool", content: "1" }])), false);
  assert.equal(asked.canGoOn({ ...chat([user("Hi")]), endpoint: "/v1/embeddings" }), false);
  assert.equal(asked.canGoOn(null), false);
  assert.equal(asked.canEdit(chat([user([{ type: "image_url" }])])), false);
});

test("a retry asks the same once more, and says of what", () => {
  const request = chat([user("Hi")], { job: { metadata: { k: "v" }, options: { timeout_s: 30, max_cost_usd: null, delay_s: 60 } } });
  assert.deepEqual(asked.again(request), {
    endpoint: asked.CHAT, model: "m", priority: "high", body: request.body, timeout_s: 30, metadata: { k: "v", retry_of: ID },
  });
});

test("text is cut into sections that joined are the text again", () => {
  const cases = {
    "no code at all\n": ["text"],
    "a\n```js\nlet b;\n```\nc": ["text", "fence", "code", "fence", "text"],
    "```\nnever closed": ["fence", "code"],
    "````\n```\n````\n": ["fence", "code", "fence"],
    "it is ``` in a line": ["text"],
    "": [],
  };
  for (const [text, kinds] of Object.entries(cases)) {
    const found = sections(text);
    assert.deepEqual(found.map(({ kind }) => kind), kinds);
    assert.equal(found.map((section) => section.text).join(""), text);
  }
});

test("a block of output ends at a line's end where there is one, never inside a letter, and always ends", () => {
  assert.equal(cutOf(`${"a".repeat(2500)}\nb`, 0, 0), 2501);
  assert.equal(cutOf("short\n", 0, 0), 20_000);
  assert.equal(cutOf("one\ntwo\n", 0, 1999), 4);
  const emoji = "😀".repeat(20_000);
  assert.equal(cutOf(`a${emoji}`, 0, 0), 20_001);
  for (let at = 0, length = 19_999; at < 50; ) at += cutOf(emoji, at, length) || assert.fail("no progress");
});

test("a request that is copied for a program is the same, and no turn of this page's conversation", () => {
  const given = { id: "1", endpoint: asked.CHAT, model: "m", body: { messages: [] }, priority: "low" };
  const own = { conversation: "c", turn: "2", edit_of: "0", retry_of: "0" };
  assert.deepEqual(asked.elsewhere({ ...given, metadata: { ...own, team: "a" } }).metadata, { team: "a" });
  assert.equal("metadata" in asked.elsewhere({ ...given, metadata: own }), false);
  assert.equal(asked.elsewhere({ ...given, metadata: {} }).model, "m");
});

test("snippets carry any text unharmed, and no key", async () => {
  const submitted = { model: "m", messages: [user(`It's "quoted" \\ \n $HOME \`x\` """ ünï 😀`)] };
  const command = snippets.curl("https://jobs.example.com", submitted);
  assert.match(command, /Bearer \$LLMJOBS_KEY/);
  const { spawnSync } = await import("node:child_process");
  const shell = spawnSync("sh", ["-c", command.replace(/^curl .*\\\n.*\\\n.*\\\n {2}-d /, "printf %s ")], { encoding: "utf8" });
  assert.deepEqual(JSON.parse(shell.stdout), submitted);
  const program = snippets.python("https://jobs.example.com", submitted);
  const python = spawnSync("python3", ["-c", `${program.split("\nrequest = ")[0]}\nprint(json.dumps(submitted))`], { encoding: "utf8" });
  assert.deepEqual(JSON.parse(python.stdout), submitted, python.stderr);
});

class Store extends Map {
  get length() { return this.size; }
  key(index) { return [...this.keys()][index]; }
  getItem(key) { return this.get(key) ?? null; }
  setItem(key, value) { this.set(key, String(value)); }
  removeItem(key) { this.delete(key); }
}

test("who logs in next finds no draft of the one before", () => {
  const [local, session] = [new Store(), new Store()];
  createMemory("1", { local, session }).keepDraft({ prompt: "secret" });
  assert.deepEqual(createMemory("1", { local, session }).draft(), { prompt: "secret" });
  assert.deepEqual(createMemory("2", { local, session }).draft(), {});
  assert.equal(JSON.stringify([...session]).includes("secret"), false);
});

test("a store that is full, forbidden or spoilt is no error", () => {
  const broken = { get length() { throw new Error("no"); }, getItem: () => "{", setItem: () => { throw new Error("full"); }, removeItem: () => { throw new Error("no"); } };
  const memory = createMemory("1", { local: broken, session: broken });
  assert.deepEqual([memory.choices(), memory.draft(), memory.keepDraft({}), memory.dropDraft()], [{}, {}, false, null]);
  memory.choose({ model: "m" });
});

test("months have their days, and years end", () => {
  assert.deepEqual([months.named("2026-11"), months.moved("2026-01", -1), months.moved("2026-12", 1)], ["November 2026", "2025-12", "2027-01"]);
  const days = months.filled("2028-02", [{ day: "2028-02-29", jobs: 3 }]);
  assert.deepEqual([days.length, days[0].jobs, days[28].jobs], [29, 0, 3]);
});

test("what waits in the page says for what, and that it is sent by itself", () => {
  assert.equal(display.waitingLine({ before: 0, until: null, reason: null }), "");
  const line = display.waitingLine({ before: 2, until: new Date(2026, 10, 21, 12, 3, 4), reason: "queue_full" });
  assert.match(line, /^Waits its turn: the queue is full, 2 before it\. It is sent by itself\. The next try is at 12:03:04.PM\.$/);
});

test("errors of a call are said plainly", () => {
  assert.match(display.callError({ status: 429, code: "insufficient_quota", message: "over budget" }), /^The budget is used up/);
  assert.match(display.callError({ status: 0, code: "connection_error", message: "x" }), /What you wrote is kept/);
  assert.equal(display.callError({ status: 400, code: "x", message: "expected a number" }), "Expected a number.");
});
