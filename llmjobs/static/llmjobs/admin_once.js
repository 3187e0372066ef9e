/* A form that was just sent is not sent again by the second click of a double click. The server does everything once all
   the same; but the answer to the second would take the place of the first one's, and that may be the only page that
   ever shows a new key. Owns nothing else: where this script is missing, forms work as they do. */

const AGAIN_MS = 5_000; // an export stays on its page, and may be asked for again
const sentAt_ms = new WeakMap();

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method")?.toLowerCase() !== "post") return;
  const now_ms = performance.now();
  if (now_ms - (sentAt_ms.get(form) ?? -Infinity) < AGAIN_MS) event.preventDefault();
  else sentAt_ms.set(form, now_ms);
});
// Back to a page that the browser kept: its forms may be sent anew.
window.addEventListener("pageshow", () => {
  for (const form of document.forms) sentAt_ms.delete(form);
});
