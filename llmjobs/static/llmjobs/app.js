/**
 * The page at `/`: the composer, and what joins it to the open job and the list.
 *
 * The address says which job is open (`#job=<id>`), so that links, the back button and a reload need nothing else.
 * Transport is client.js, wording display.js, the open job job_view.js, the list job_list.js.
 */

import { LLMJobs } from "./client.js";
import * as display from "./display.js";
import { byId, setHidden, setText } from "./dom.js";
import { createJobList } from "./job_list.js";
import { createJobView } from "./job_view.js";

const FIELD_OF_PARAM = { model: "model", priority: "priority", messages: "prompt", max_completion_tokens: "max-output" };

const llmjobs = new LLMJobs();
const view = createJobView({ llmjobs, isSessionEnd, onState: connection("job") });
const list = createJobList({ llmjobs, isSessionEnd, onState: connection("jobs"), onStatus: view.reopen });

function openFromAddress() {
  const id = /^#job=([\w-]+)$/.exec(location.hash)?.[1];
  if (id) open(id);
}

function open(id, job = null) {
  view.open(id, job);
  list.markOpen(id);
}

/** Where the layout is one column, the card may be far from what was clicked. */
function showCard() {
  const { top } = byId("job").getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) byId("job").scrollIntoView({ block: "start" });
}

/** The indicator in the header shows the worse of the two connections. */
function connection(name) {
  return (state) => {
    const { dataset } = byId("connection");
    dataset[name] = state;
    const states = [dataset.job, dataset.jobs];
    dataset.state = ["reconnecting", "connecting"].find((each) => states.includes(each)) ?? "live";
    setText(byId("connection-text"), dataset.state === "live" ? "live" : `${dataset.state}…`);
  };
}

/** Shows the way back where an error says that the session has ended. */
function isSessionEnd(error) {
  if (error.status !== 401) return false;
  setHidden(byId("session-notice"), false);
  return true;
}

function startComposer() {
  const form = byId("composer");
  const button = byId("submit");
  let models = new Map();

  /** A provider may take any model, and may do so before there is a first one: then a name can be typed. */
  async function loadModels() {
    try {
      const { data } = await llmjobs.models();
      models = new Map(data.map((model) => [model.id, model]));
      const options = data.map(({ id }) => new Option(id, id));
      if (form.dataset.anyModel || !data.length) options.push(new Option("another model…", ""));
      byId("model").replaceChildren(...options);
      byId("model").disabled = button.disabled = false;
      showModel();
    } catch (error) {
      if (!isSessionEnd(error)) showError(null, `The models can’t be listed. ${display.callError(error)}`);
    }
  }

  function showModel() {
    const isOther = byId("model").value === "";
    setHidden(byId("other-model-field"), !isOther);
    byId("other-model").required = isOther;
    setText(byId("model-hint"), display.modelHint(models.get(byId("model").value)));
  }

  async function submit(event) {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    showError(null, "");
    try {
      const job = await llmjobs.submit(submission(new FormData(form)));
      list.upsert(job);
      open(job.id, job);
      location.hash = `job=${job.id}`; // and so showCard
    } catch (error) {
      if (!isSessionEnd(error)) showError(error.param, display.callError(error));
    } finally {
      button.disabled = false;
    }
  }

  function submission(values) {
    const body = { messages: [{ role: "user", content: values.get("prompt") }] };
    if (values.get("max_output")) body.max_completion_tokens = Number(values.get("max_output"));
    return { model: values.get("model") || values.get("other_model"), priority: values.get("priority"), body };
  }

  /** `param` is the server's name of the field at fault; its input is marked and gets the focus. */
  function showError(param, message) {
    form.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
    const part = param?.split(/[.[]/).find((each) => each in FIELD_OF_PARAM);
    const input = part === "model" && !byId("model").value ? byId("other-model") : byId(FIELD_OF_PARAM[part]);
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
    setHidden(byId("composer-error"), !message);
    setText(byId("composer-error"), message);
  }

  form.addEventListener("submit", submit);
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  byId("model").addEventListener("change", showModel);
  loadModels();
}

if (byId("composer")) startComposer();
addEventListener("hashchange", () => { openFromAddress(); showCard(); });
openFromAddress();
list.follow();
