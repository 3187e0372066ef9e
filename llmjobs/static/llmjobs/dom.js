/** How the page writes into the document: as text, and only where the text changes (a reader's selection stays). */

const COPIED_MS = 2000;

export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setHidden(element, isHidden) {
  if (element.hidden !== isHidden) element.hidden = isHidden;
}

/** A job's status as a badge: the word, and by its data attribute the colour. */
export function setStatus(badge, status) {
  setText(badge, status);
  badge.dataset.status = status;
}

/** A new element. Strings among the children become text nodes; attributes that are null or false are left out. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** `make` for a part of a picture. */
export function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** True if the dialog's button of the value "yes" closed it; Escape and all else is no. */
export function isConfirmed(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/**
 * Copies `text` and says so on the button. By plain HTTP there is no clipboard: then `shown`, if given, is selected,
 * since the keyboard has one.
 */
export async function copyWith(button, text, shown = null) {
  const label = button.dataset.label ??= button.textContent;
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (shown) getSelection().selectAllChildren(shown);
    said = shown ? "Selected" : "Not copied";
  }
  setText(button, said);
  setTimeout(() => setText(button, label), COPIED_MS);
}
