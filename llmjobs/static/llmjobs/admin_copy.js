/* Copy buttons: `<button data-copy="id" hidden>` copies the text of the element with that id. Without this script they stay hidden. */

const SAID_MS = 2_000;

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  if (!source) return;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source); // by plain HTTP there is no clipboard, but the keyboard has one
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, SAID_MS);
}

for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (button) copy(button);
});
