/**
 * The page at `/account/`: a client's usage of the month, its keys, and how to begin.
 *
 * Which client is meant the address says (`?client=`), and the server checked it. Figures are read again each few
 * seconds while the page is looked at.
 */

import { LLMJobs } from "./client.js";
import { createConnection, isSessionEnd, logOutTogether } from "./connection.js";
import { byId, copyWith, setHidden, setText } from "./dom.js";
import { callError } from "./display.js";
import { startKeys } from "./keys_view.js";
import { createMemory } from "./remembered.js";
import * as snippets from "./snippets.js";
import { startUsage } from "./usage_view.js";

const clientSelect = byId("account-client");
const llmjobs = new LLMJobs({ client: clientSelect?.value ?? null });
const connection = createConnection();
const memory = createMemory(byId("user").dataset.id);

/** The client that was chosen last, at whichever page. */
function openRemembered() {
  const { client } = memory.choices();
  const isOther = client !== clientSelect.value && [...clientSelect.options].some(({ value }) => value === client);
  if (!location.search && isOther) location.replace(`?client=${encodeURIComponent(client)}`);
}

/** Runs `action`; what went wrong is said in the line `error`. @returns {Promise<boolean>} whether it went well */
async function guarded(error, action) {
  const report = connection.reporter(error.id);
  try {
    await action();
    setHidden(error, true);
    report("live");
    return true;
  } catch (problem) {
    report(problem.status === 0 ? "reconnecting" : "live");
    if (isSessionEnd(problem)) return false;
    setHidden(error, false);
    setText(error, callError(problem));
    return false;
  }
}

function startSnippet() {
  const submitted = { model: "MODEL", messages: [{ role: "user", content: "Hello" }] };
  const show = () => setText(byId("snippet"), snippets.curl(location.origin, submitted));
  show();
  guarded(byId("snippet-error"), async () => {
    const { data } = await llmjobs.models();
    if (data.length) submitted.model = data[0].id;
    show();
  });
  byId("snippet-copy").addEventListener("click", () => copyWith(byId("snippet-copy"), byId("snippet").textContent, byId("snippet")));
}

if (clientSelect) openRemembered();
clientSelect?.addEventListener("change", () => {
  memory.choose({ client: clientSelect.value });
  clientSelect.form.requestSubmit();
});
logOutTogether({ llmjobs, form: byId("logout"), memory });
startUsage({ llmjobs, guarded });
startKeys({ llmjobs, guarded });
startSnippet();
