/** The choice of a model: those the caller may use, what they cost, or one by name where a provider takes any. */

import { modelHint } from "./display.js";
import { byId, setHidden, setText } from "./dom.js";

/**
 * @param {{llmjobs: import("./client.js").LLMJobs, form: HTMLFormElement, onReady: () => void,
 *   memory: ReturnType<import("./remembered.js").createMemory>, onError: (error: Error) => void}} composer
 */
export function createModels({ llmjobs, form, memory, onReady, onError }) {
  const select = byId("model");
  let models = new Map();

  /** A provider may take any model, and may do so before there is a first one: then a name can be typed. */
  async function load() {
    try {
      const { data } = await llmjobs.models();
      models = new Map(data.map((model) => [model.id, model]));
      const options = data.map(({ id }) => new Option(id, id));
      if (form.dataset.anyModel || !data.length) options.push(new Option("another model…", ""));
      select.replaceChildren(...options);
      select.disabled = false;
      byId("history-model").append(...data.map(({ id }) => new Option(id, id)));
      choose(memory.choices().model);
      show();
      onReady();
    } catch (error) {
      onError(error);
    }
  }

  function choose(name) {
    if (models.has(name)) select.value = name;
    else if (name && form.dataset.anyModel) {
      select.value = "";
      byId("other-model").value = name;
    }
  }

  function show() {
    const isOther = select.value === "";
    setHidden(byId("other-model-field"), !isOther);
    byId("other-model").required = isOther;
    setText(byId("model-hint"), modelHint(models.get(select.value)));
  }

  select.addEventListener("change", () => {
    show();
    memory.choose({ model: select.value });
  });

  return {
    load,
    select: (name) => { choose(name); show(); },
    value: () => select.value || byId("other-model").value,
  };
}
