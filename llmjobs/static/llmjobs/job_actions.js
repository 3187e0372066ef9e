/**
 * What can be done with the open job: cancel, copy, retry, reply, edit, share, delete. Owns the buttons of the card
 * `#job` and their questions; what they change, the server changes.
 */

import * as asked from "./asked.js";
import { TERMINAL } from "./client.js";
import { waitingLine } from "./display.js";
import { byId, copyWith, isConfirmed, setHidden, setText } from "./dom.js";
import { openShares } from "./share_dialog.js";
import * as snippets from "./snippets.js";

const WAITING = ["queued", "scheduled"];

/**
 * @param {{view: ReturnType<import("./job_view.js").createJobView>, clientFor: (name: string) => import("./client.js").LLMJobs,
 *   onSubmitted: (job: import("./client.js").Job) => void, onErased: (job: import("./client.js").Job) => void,
 *   composer: {reply: Function, edit: Function}}} page
 */
export function createJobActions({ view, clientFor, composer, onSubmitted, onErased }) {
  const button = (name) => byId(`job-${name}`);
  const menu = byId("job-menu");

  function render({ job, asked: request, isOver }) {
    const isTerminal = TERMINAL.has(job?.status);
    setHidden(button("copy"), !job || WAITING.includes(job.status));
    setHidden(button("reply"), !isOver || !asked.canGoOn(request));
    setHidden(button("edit"), !asked.canEdit(request));
    setHidden(button("retry"), !isTerminal || !request);
    setHidden(button("share"), !job?.prompt_hash || !byId("share-dialog"));
    setHidden(button("erase"), !isTerminal || !job?.prompt_hash);
    for (const name of ["curl", "python"]) setHidden(button(name), !request);
    setHidden(menu, !request && button("erase").hidden);
  }

  /** Runs `action` with the job that is open now; an error of it is shown at that job. */
  function on(name, action) {
    button(name).addEventListener("click", async () => {
      const shown = view.shown();
      try {
        await action(shown);
      } catch (error) {
        view.showError(shown, error);
      }
      keepFocus();
    });
  }

  /** Where the button that was pressed is gone by now, the keyboard goes on from the job's title. */
  function keepFocus() {
    const { activeElement } = document;
    const isThere = activeElement !== document.body && !activeElement.disabled && activeElement.checkVisibility();
    if (!isThere) byId("job-title").focus({ preventScroll: true });
  }

  async function cancel(shown) {
    if (shown.job.status === "running" && !(await isConfirmed(byId("cancel-dialog")))) return;
    view.update(shown, { cancelAsked: true });
    try {
      view.update(shown, { job: await clientFor(shown.job.client).cancel(shown.id) });
    } catch (error) {
      view.update(shown, { cancelAsked: false });
      throw error;
    }
  }

  /** Under the key of the try before where that got no answer: it may have arrived. */
  async function retry(shown) {
    const label = button("retry").textContent;
    const onWait = (state) => setText(button("retry"), waitingLine(state) ? "Waits its turn…" : label);
    button("retry").disabled = true;
    try {
      onSubmitted(await clientFor(shown.job.client).submit(asked.again(shown.asked), { idempotencyKey: shown.retryKey, onWait }));
      shown.retryKey = undefined;
    } catch (error) {
      if (error.status === 0) shown.retryKey = error.idempotencyKey ?? undefined;
      throw error;
    } finally {
      setText(button("retry"), label);
      button("retry").disabled = false;
    }
  }

  function closeMenu() {
    menu.open = false;
    menu.querySelector("summary").focus();
  }

  async function erase(shown) {
    closeMenu();
    if (!(await isConfirmed(byId("erase-dialog")))) return;
    await clientFor(shown.job.client).json(`/api/jobs/${encodeURIComponent(shown.id)}`, { method: "DELETE" });
    onErased(shown.job);
  }

  on("cancel", cancel);
  on("copy", () => copyWith(button("copy"), view.text(), byId("job-output")));
  on("reply", (shown) => composer.reply(shown, view.text()));
  on("edit", (shown) => composer.edit(shown));
  on("retry", retry);
  on("share", (shown) => openShares(clientFor(shown.job.client), shown.id));
  on("erase", erase);
  on("curl", (shown) => copyWith(button("curl"), snippets.curl(location.origin, asked.elsewhere(shown.asked))));
  on("python", (shown) => copyWith(button("python"), snippets.python(location.origin, asked.elsewhere(shown.asked))));
  addEventListener("click", (event) => { if (menu.open && !menu.contains(event.target)) menu.open = false; });
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && menu.open) closeMenu();
  });

  return { render };
}
