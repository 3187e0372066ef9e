/**
 * The client's API keys: listed, made, revoked. A key is shown once, when it is made; it is kept in no store, and gone
 * with the page. Owns the section `#keys`.
 */

import { ago } from "./display.js";
import { byId, copyWith, isConfirmed, make, setHidden, setText } from "./dom.js";

/** @param {{llmjobs: import("./client.js").LLMJobs, guarded: Function}} page */
export function startKeys({ llmjobs, guarded }) {
  const form = byId("key-form");
  const error = byId("keys-error");

  async function load() {
    const { data } = await llmjobs.json("/api/keys");
    byId("keys-rows").replaceChildren(...data.map(row));
    setHidden(byId("keys-table"), data.length === 0);
    setHidden(byId("keys-none"), data.length > 0);
  }

  function row(key) {
    const cells = [
      [key.name, "key-name"],
      [`${key.prefix}…`, "key-prefix"],
      [key.scopes.join(", "), "key-scopes"],
      [key.created_by ?? "an operator", "key-by"],
      [key.last_used_at ? ago(key.last_used_at, Date.now()) : "never", "key-used"],
      [state(key), "key-state"],
    ].map(([text, name]) => make("td", { class: name, "data-label": LABELS[name] ?? null }, text));
    const last = make("td", { class: "key-action" });
    if (form && isValid(key)) last.append(revokeButton(key));
    return make("tr", { "data-valid": isValid(key) ? "true" : "false" }, ...cells, last);
  }

  function revokeButton(key) {
    const button = make("button", { type: "button", class: "danger", "aria-label": `Revoke ${key.name}` }, "Revoke");
    button.addEventListener("click", async () => {
      setText(byId("revoke-name"), key.name);
      if (!(await isConfirmed(byId("revoke-dialog")))) return;
      await guarded(error, async () => {
        await llmjobs.json(`/api/keys/${encodeURIComponent(key.id)}/revoke`, { method: "POST" });
        await load();
        byId("keys-title").focus();
      });
    });
    return button;
  }

  async function create(event) {
    event.preventDefault();
    const values = new FormData(form);
    const body = { name: values.get("name"), scopes: values.getAll("scope") };
    if (values.get("expires")) body.expires_in_s = Number(values.get("expires"));
    byId("key-make").disabled = true;
    const isMade = await guarded(byId("key-error"), async () => {
      const made = await llmjobs.json("/api/keys", { method: "POST", body });
      byId("key-value").value = made.api_key;
      setHidden(byId("key-made"), false);
      byId("key-value").focus();
      byId("key-value").select();
      form.reset();
      await load();
    });
    byId("key-make").disabled = false;
    if (!isMade) byId("key-make").focus(); // which it lost while it was disabled
  }

  form?.addEventListener("submit", create);
  byId("key-copy")?.addEventListener("click", () => copyWith(byId("key-copy"), byId("key-value").value));
  guarded(error, load);
}

const LABELS = { "key-by": "Made by", "key-used": "Last used" };

function isValid(key) {
  return !key.revoked_at && (!key.expires_at || Date.parse(key.expires_at) > Date.now());
}

function state(key) {
  const day = (iso) => new Date(iso).toLocaleDateString("en", { dateStyle: "medium" });
  if (key.revoked_at) return `revoked ${day(key.revoked_at)}`;
  if (!key.expires_at) return "valid";
  return `${isValid(key) ? "valid until" : "expired"} ${day(key.expires_at)}`;
}
