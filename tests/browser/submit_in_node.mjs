/** `node submit_in_node.mjs JSON`: submitting.mjs as a program, which tells each step as a line of JSON. */

import { LLMJobs } from "../../llmjobs/static/llmjobs/client.js";
import { submitAll } from "./submitting.mjs";

const tell = (step) => process.stdout.write(`${JSON.stringify(step)}\n`);
await submitAll({ LLMJobs, tell, ...JSON.parse(process.argv[2]) });
