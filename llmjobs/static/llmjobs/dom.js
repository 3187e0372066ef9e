/** How the page writes into the document: as text, and only where the text changes (a reader's selection stays). */

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
