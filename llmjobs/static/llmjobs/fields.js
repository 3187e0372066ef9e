/** The fields of the composer: what they hold, what of it is remembered, and which of them a refusal is about. */

import { byId, setHidden, setText } from "./dom.js";

const FIELD_OF_PARAM = {
  model: "model", priority: "priority", messages: "prompt", max_completion_tokens: "max-output", temperature: "temperature",
  response_format: "is-json", timeout_s: "timeout",
};

/** @param {{form: HTMLFormElement, memory: ReturnType<import("./remembered.js").createMemory>, onMode: () => void}} composer */
export function createFields({ form, memory, onMode }) {
  const client = byId("client");
  const priority = byId("priority");

  function values() {
    return {
      prompt: byId("prompt").value,
      system: byId("system").value,
      priority: priority.value,
      temperature: byId("temperature").value,
      maxOutput: byId("max-output").value,
      timeoutS: byId("timeout").value,
      isJson: byId("is-json").checked,
    };
  }

  /** @param {{prompt: string, system: string, temperature?: any, maxOutput?: any, isJson?: boolean}} form */
  function fill({ prompt, system, temperature, maxOutput, isJson }) {
    byId("prompt").value = prompt;
    byId("system").value = system;
    if (temperature !== undefined) byId("temperature").value = temperature;
    if (maxOutput !== undefined) byId("max-output").value = maxOutput;
    if (isJson !== undefined) byId("is-json").checked = isJson;
    if (system || temperature || maxOutput || isJson) byId("parameters").open = true;
  }

  /** Each client's tier has priorities of its own; the server wrote them beside the client's name. */
  function showPriorities(wanted = priority.value) {
    const { priorities, defaultPriority } = client.selectedOptions[0].dataset;
    const words = priorities.split(" ");
    priority.replaceChildren(...words.map((word) => new Option(word, word)));
    priority.value = words.includes(wanted) ? wanted : defaultPriority;
    setHidden(byId("client-hint"), !("paused" in client.selectedOptions[0].dataset));
  }

  function setClient(name) {
    if (![...client.options].some((option) => option.value === name)) return;
    client.value = name;
    showPriorities();
  }

  /** A reply has the system prompt that its conversation began with. */
  function showContext({ kind }) {
    setHidden(byId("system-field"), kind === "reply");
  }

  function mode() {
    return form.elements.mode.value;
  }

  function setMode(value) {
    form.elements.mode.value = value;
    memory.choose({ mode: value });
  }

  /** `param` is the server's name of the field at fault; its input is marked and gets the focus. */
  function showError(param, message) {
    form.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
    const part = param?.split(/[.[]/).find((each) => each in FIELD_OF_PARAM);
    const input = part === "model" && !byId("model").value ? byId("other-model") : byId(FIELD_OF_PARAM[part]);
    if (byId("parameters").contains(input ?? null)) byId("parameters").open = true;
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
    setHidden(byId("composer-error"), !message);
    setText(byId("composer-error"), message);
  }

  function remember() {
    memory.choose({ client: client.value, priority: priority.value });
  }

  /** What a browser finds wrong in a closed part it can't point at, and then nothing happens at all. */
  form.addEventListener("invalid", ({ target }) => {
    if (byId("parameters").contains(target)) byId("parameters").open = true;
  }, { capture: true });

  const choices = memory.choices();
  if (["single", "conversation"].includes(choices.mode)) form.elements.mode.value = choices.mode;
  setClient(choices.client);
  showPriorities(choices.priority);
  client.addEventListener("change", () => { showPriorities(); remember(); });
  priority.addEventListener("change", remember);
  form.elements.mode.forEach((radio) => radio.addEventListener("change", () => { setMode(radio.value); onMode(); }));

  return { values, fill, mode, setMode, client: () => client.value, setClient, showContext, showError, remember };
}
