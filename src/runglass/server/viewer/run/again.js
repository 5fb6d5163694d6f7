// Runs the same input again, in the same version or in that of now.
import { html, useLayoutEffect, useRef, useState } from "../core/html.js";
import { ApiError, errorOf, request } from "../core/api.js";
import { go } from "../core/router.js";
import { say } from "../parts/toast.js";

/** Statuses that say nothing of the run: no credit, too slow, too many. */
const LATER = new Set([402, 408, 429]);

/** Of an imported version none can be started. @param {{run: import("../data/run.js").Run, isImported: boolean, isOpen: import("../vendor/signals.js").Signal<boolean>,
 *   onRefusal: (message: string) => void}} props */
export function RunAgain({ run, isImported, isOpen, onRefusal }) {
  const [refusal, setRefusal] = useState("");
  const [isAsking, setAsking] = useState(false);
  /** @type {import("../core/html.js").Ref<HTMLElement>} */
  const menu = useRef(null);
  const isShown = isOpen.value && !refusal;
  useLayoutEffect(() => { if (isShown) menu.current?.querySelector("button")?.focus(); }, [isShown]);
  const close = () => { isOpen.value = false; };

  /** @param {KeyboardEvent} event */
  function key(event) {
    if (event.key !== "Escape" || !isShown) return;
    event.preventDefault();
    close();
  }

  /** @param {"same"|"production"} version */
  async function start(version) {
    setAsking(true);
    try {
      const answer = await request(`/flow-runs/${encodeURIComponent(run.id)}/rerun`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ version }),
      });
      const { executionId } = await answer.json();
      close();
      go(`/runs/${executionId}`);
    } catch (error) {
      setAsking(false);
      // What the server will not do it will not do later either; what it could not do it may.
      if (error instanceof ApiError && error.status >= 400 && error.status < 500 && !LATER.has(error.status)) {
        // A line has no room for an id that is in the address.
        const reason = error.message.replace(` of run '${run.id}'`, "");
        setRefusal(reason);
        onRefusal(reason);
      } else say(errorOf(error).message);
    }
  }

  const same = run.version === 0 ? "Same draft" : run.version ? `Same version, v${run.version}` : "Same version";
  return html`
    <span class="again" onKeyDown=${key} onMouseDown=${(/** @type {MouseEvent} */ event) => event.preventDefault()}
      onFocusOut=${(/** @type {FocusEvent} */ event) => { if (!menu.current?.parentElement?.contains(/** @type {Node|null} */ (event.relatedTarget))) close(); }}>
      <button aria-expanded=${isShown} aria-haspopup="true" disabled=${refusal !== ""} title=${refusal || "Start a new run with the same input"}
        onClick=${() => { isOpen.value = !isOpen.peek(); }}>Run again ▾</button>
      ${isShown && html`<span class="choices" ref=${menu} role="group" aria-label="Run again in">
        ${!isImported && html`<button class="plain" disabled=${isAsking} onClick=${() => start("same")}>${same}</button>`}
        <button class="plain" disabled=${isAsking} onClick=${() => start("production")}>Production version</button>
        ${run.overridden?.length && html`<span class="muted">without its overrides</span>`}</span>`}
    </span>`;
}
