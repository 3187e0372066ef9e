/**
 * What a job was asked, and what is asked next: `GET /api/jobs/{id}/request` in, turns and submissions out.
 * Pure: no DOM, no calls.
 *
 * A conversation is no thing of the server's: each turn is a job whose request holds all turns before it, and whose
 * metadata names the conversation, so that its other turns are found.
 *
 * @typedef {import("./client.js").Job} Job
 * @typedef {{id: string, endpoint: string, model: string, body: Object, priority: string, options?: Object,
 *   metadata: Object<string, string>}} Asked
 * @typedef {{kind: "new"|"reply"|"edit", of: string|null, conversation: string|null, turn: number, before: Object[],
 *   rest: Object}} Context  `before`: messages that are sent ahead of the prompt; `rest`: other fields of the body
 */

export const CHAT = "/v1/chat/completions";
const FORM_FIELDS = ["messages", "model", "stream", "stream_options", "temperature", "max_completion_tokens", "max_tokens", "response_format"];
const PAGE_METADATA = ["conversation", "turn", "edit_of", "retry_of"];
const OPTIONS = ["timeout_s", "max_attempts", "retry_for_s", "max_cost_usd", "on_interrupt", "user"];

/** What was said before the answer, in order. @param {Asked} asked @returns {{role: string, text: string}[]} */
export function turns(asked) {
  const { messages, instructions, input, prompt } = asked.body;
  if (Array.isArray(messages)) return messages.map(turn);
  const found = instructions ? [{ role: "system", text: textOf(instructions) }] : [];
  const said = input ?? prompt;
  if (Array.isArray(said) && said.every((item) => item?.role)) return [...found, ...said.map(turn)];
  return said === undefined ? found : [...found, { role: "user", text: textOf(said) }];
}

function turn(message) {
  const calls = (message.tool_calls ?? []).map((call) => `[calls ${call.function?.name ?? call.type}]`);
  return { role: String(message.role ?? "user"), text: [textOf(message.content ?? ""), ...calls].filter(Boolean).join("\n") };
}

/** The text of a message's content; of a part that is no text, its kind. */
function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return JSON.stringify(content);
  return content.map((part) => (typeof part === "string" ? part : part?.text ?? `[${part?.type ?? typeof part}]`)).join("\n");
}

/** Whether a reply can follow: a chat whose last word was a person's. @param {Asked|null} asked */
export function canGoOn(asked) {
  const messages = asked?.endpoint === CHAT ? asked.body.messages : null;
  return Array.isArray(messages) && messages.at(-1)?.role === "user";
}

/** Whether its last prompt can be written anew in a text field. @param {Asked|null} asked */
export function canEdit(asked) {
  return canGoOn(asked) && typeof asked.body.messages.at(-1).content === "string";
}

/** Nothing before the prompt. @param {string|null} conversation its id, where the prompt begins one @returns {Context} */
export function fresh(conversation = null) {
  return { kind: "new", of: null, conversation, turn: 1, before: [], rest: {} };
}

/** The turn after this one. One that has no answer is left out, as if it had not been asked. @param {Job} job @param {Asked} asked @returns {Context} */
export function replyTo(job, asked, answer) {
  const { messages } = asked.body;
  const before = answer ? [...messages, { role: "assistant", content: answer }] : messages.slice(0, -1);
  return { ...contextOf("reply", job, asked), turn: turnOf(job) + (answer ? 1 : 0), before };
}

/** The same turn once more, in other words. @param {Job} job @param {Asked} asked @returns {Context} */
export function editOf(job, asked) {
  return { ...contextOf("edit", job, asked), turn: turnOf(job), before: asked.body.messages.slice(0, -1).filter(({ role }) => role !== "system") };
}

function contextOf(kind, job, asked) {
  const rest = Object.fromEntries(Object.entries(asked.body).filter(([name]) => !FORM_FIELDS.includes(name)));
  return { kind, of: job.id, conversation: job.metadata?.conversation ?? job.id, rest };
}

export function turnOf(job) {
  const turn = Number(job.metadata?.turn);
  return Number.isInteger(turn) && turn > 0 ? turn : 1;
}

/** What the form's fields were when this was asked. @param {Asked} asked */
export function formOf(asked) {
  const { messages = [], temperature, max_completion_tokens: most, max_tokens: mostOnce, response_format: format } = asked.body;
  const system = messages.find(({ role }) => role === "system")?.content;
  return {
    prompt: messages.at(-1)?.content ?? "",
    system: typeof system === "string" ? system : "",
    temperature: temperature ?? "",
    maxOutput: most ?? mostOnce ?? "",
    isJson: format?.type === "json_object",
  };
}

/**
 * @param {{model: string, priority: string, prompt: string, system: string, temperature: string, maxOutput: string,
 *   isJson: boolean, timeoutS: string}} form
 * @param {Context} context
 * @returns {import("./client.js").Submission}
 */
export function submission(form, context) {
  const hasSystem = context.kind !== "reply" && form.system.trim() !== "";
  const body = {
    ...context.rest,
    messages: [...(hasSystem ? [{ role: "system", content: form.system }] : []), ...context.before, { role: "user", content: form.prompt }],
  };
  if (form.temperature !== "") body.temperature = Number(form.temperature);
  if (form.maxOutput !== "") body.max_completion_tokens = Number(form.maxOutput);
  if (form.isJson) body.response_format = { type: "json_object" };
  const metadata = {};
  if (context.conversation) Object.assign(metadata, { conversation: context.conversation, turn: String(context.turn) });
  if (context.kind === "edit") metadata.edit_of = context.of;
  const submitted = { model: form.model, priority: form.priority, body, metadata };
  if (form.timeoutS !== "") submitted.timeout_s = Number(form.timeoutS);
  return submitted;
}

/** The same job once more. Times that counted from the first submit (a delay, a deadline) are not taken over. @param {Asked} asked */
export function again(asked) {
  const { id, endpoint, model, body, priority, options = {}, metadata } = asked;
  const kept = Object.fromEntries(OPTIONS.filter((name) => options[name] != null).map((name) => [name, options[name]]));
  return { endpoint, model, body, priority, ...kept, metadata: { ...metadata, retry_of: id } };
}

/** The same for a program of somebody's own: without what is this page's, or it would add a turn to the conversation. @param {Asked} asked */
export function elsewhere(asked) {
  const { metadata, ...rest } = again(asked);
  const own = Object.entries(metadata).filter(([name]) => !PAGE_METADATA.includes(name));
  return own.length ? { ...rest, metadata: Object.fromEntries(own) } : rest;
}
