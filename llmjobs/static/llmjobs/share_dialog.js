/**
 * The dialog of a job's links: make one that expires, copy it, revoke it.
 *
 * A link's address is shown once, when it is made: the server keeps only its hash, so nobody can read it later, the one
 * who made it included.
 */

import * as display from "./display.js";
import { byId, copyWith, make, setHidden, setText } from "./dom.js";

/** @param {import("./client.js").LLMJobs} llmjobs @param {string} id the job's */
export function openShares(llmjobs, id) {
  const dialog = byId("share-dialog");
  const path = `/api/jobs/${encodeURIComponent(id)}/shares`;

  function showError(error) {
    setHidden(byId("share-error"), !error);
    setText(byId("share-error"), error ? display.callError(error) : "");
  }

  /** Runs `action`; the dialog's own line says what went wrong with it. */
  async function guarded(action) {
    try {
      showError(null);
      await action();
    } catch (error) {
      showError(error);
    }
  }

  /** By now the dialog may be open for another job, which has links of its own. */
  function isAsked() {
    return dialog.dataset.job === id;
  }

  async function list() {
    const { data } = await llmjobs.json(path);
    if (!isAsked()) return;
    const valid = data.filter(({ revoked_at: revokedAt, expires_at: expiresAt }) => !revokedAt && Date.parse(expiresAt) > Date.now());
    byId("share-links").replaceChildren(...valid.map(row));
    setHidden(byId("share-none"), valid.length > 0);
  }

  function row(share) {
    const revoke = make("button", { type: "button", class: "danger" }, "Revoke");
    revoke.addEventListener("click", () => guarded(async () => {
      revoke.disabled = true;
      const revoked = llmjobs.json(`${path}/${encodeURIComponent(share.id)}/revoke`, { method: "POST" });
      await revoked.finally(() => { revoke.disabled = false; }); // one that failed is tried again
      if (byId("share-made").dataset.share === share.id) setHidden(byId("share-made"), true);
      await list();
      byId("share-make").focus();
    }));
    const when = `Made ${display.ago(share.created_at, Date.now())}, ends ${new Date(share.expires_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}`;
    return make("li", {}, make("span", {}, when), revoke);
  }

  async function create() {
    const seconds = Number(byId("share-for").value); // none where an operator allows less than a day: then the server says
    const share = await llmjobs.json(path, { method: "POST", body: seconds ? { expires_in_s: seconds } : {} });
    if (!isAsked()) return;
    byId("share-made").dataset.share = share.id;
    byId("share-url").value = new URL(share.url, location.origin).href;
    setHidden(byId("share-made"), false);
    byId("share-url").select();
    await list();
  }

  dialog.dataset.job = id;
  setHidden(byId("share-made"), true);
  byId("share-links").replaceChildren();
  setHidden(byId("share-none"), true);
  byId("share-make").onclick = () => guarded(create);
  byId("share-copy").onclick = () => copyWith(byId("share-copy"), byId("share-url").value);
  dialog.showModal();
  return guarded(list);
}
