/**
 * The keys of the page, and the dialog that lists them (`?`). One letter each, so they act only while no field has the
 * focus and no dialog is open, and can be switched off there, for those who speak to their computer.
 */

import { byId } from "./dom.js";

/**
 * @param {Object<string, () => void>} actions by key
 * @param {ReturnType<import("./remembered.js").createMemory>} memory
 */
export function startShortcuts(actions, memory) {
  const dialog = byId("keys-dialog");
  const isOn = byId("keys-on");
  isOn.checked = memory.choices().keys !== false;
  isOn.addEventListener("change", () => memory.choose({ keys: isOn.checked }));
  byId("keys-open").addEventListener("click", () => dialog.showModal());

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]") || event.target.closest?.("input, textarea, select, summary, [contenteditable]")) return;
    if (!isOn.checked) return;
    const action = event.key === "?" ? () => dialog.showModal() : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Presses the button `id`, if it is there to be pressed. */
export function press(id) {
  const button = byId(id);
  if (button && !button.hidden && !button.disabled) button.click();
}
