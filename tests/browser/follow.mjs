/** A program that uses client.js in Node: submits a prompt, follows it to its end, and tells each step as a line of JSON. */

import { LLMJobs } from "../../llmjobs/static/llmjobs/client.js";

const [baseUrl, apiKey, model, content] = process.argv.slice(2);
const tell = (step) => process.stdout.write(`${JSON.stringify(step)}\n`);

const llmjobs = new LLMJobs({ baseUrl, apiKey });
const job = await llmjobs.submit({ model, messages: [{ role: "user", content }] }).catch(({ status, code }) => {
  tell({ status, code });
  process.exit();
});
let text = "";
for await (const { seq, type, data } of llmjobs.stream(job.id, { onState: (state) => tell({ state }) })) {
  if (type === "reset") text = "";
  if (type === "delta") text += data.text;
  tell({ seq, type });
}
const ended = await llmjobs.wait(job.id, { timeoutS: 10 });
tell({ status: ended.status, isSame: text === ended.output_text, output_tokens: ended.usage?.completion_tokens });
