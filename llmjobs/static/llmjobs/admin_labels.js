/* Gives the search fields that Django's autocomplete makes the names of their labels: who listens to a page hears "Fallback"
   and not "edit". Owns nothing else. Django makes the fields once jQuery says that the page is ready, and this waits in the
   same queue, behind it. */

function labelOf(select) {
  const label = document.querySelector(`label[for="${CSS.escape(select.id)}"]`);
  return label ? label.textContent.replace(/[:\s]+$/, "").trim() : "";
}

globalThis.django?.jQuery(() => {
  for (const select of document.querySelectorAll("select.admin-autocomplete")) {
    const made = select.nextElementSibling;
    const name = labelOf(select);
    if (!made || !name) continue;
    for (const field of made.querySelectorAll(".select2-selection__rendered, .select2-search__field")) {
      field.setAttribute("aria-label", name);
    }
  }
});
