// An attempt beside another one of its step: what was different when it was tried again, or in another iteration.
import { html, useEffect, useState } from "../core/html.js";
import { errorOf, get } from "../core/api.js";
import { place, setQuery } from "../core/router.js";
import { STATUSES } from "../data/columns.js";
import { isLeaf, placeOf } from "../data/address.js";
import { chosenSibling, siblingsOf } from "../data/siblings.js";
import { saidOf } from "../parts/status.js";
import { ChangeTable } from "../compare/row.js";
import { reveal } from "./moves.js";

/** @typedef {{same: boolean, changes: import("../compare/row.js").Change[]}} AttemptsDiff */
/** @typedef {import("../core/html.js").EventOf<HTMLSelectElement>} SelectEvent */
/** @typedef {import("../core/html.js").EventOf<HTMLInputElement, KeyboardEvent>} FieldKey */

/** @param {{model: import("./model.js").RunModel, row: number}} props */
export function CompareWith({ model, row }) {
  const { rows } = model;
  const siblings = siblingsOf(rows, row);
  const other = chosenSibling(rows, row, siblings, place.value.query.get("with") ?? "");
  const path = other && isLeaf(rows, other.row) ? diffPath(model, other.row, row) : "";
  const [found, setFound] = useState(/** @type {{path: string, diff: AttemptsDiff|null, problem: string}} */ ({ path: "", diff: null, problem: "" }));
  useEffect(() => {
    if (!path) return;
    const abort = new AbortController();
    get(path, abort.signal).then(
      (diff) => setFound({ path, diff, problem: "" }),
      (error) => { if (!abort.signal.aborted) setFound({ path, diff: null, problem: errorOf(error).message }); },
    );
    return () => abort.abort();
  }, [path, rows.status[row], other && rows.status[other.row]]);
  if (!other) return html`<div class="empty"><h2>Nothing to compare with</h2><p>The step has one attempt and is in no loop.</p></div>`;

  const choose = (/** @type {string} */ name) => setQuery({ with: name });
  const options = siblings.some((each) => each.name === other.name) ? siblings : [other, ...siblings];
  const { diff, problem } = found.path === path ? found : { diff: null, problem: "" };
  return html`
    <p class="compare-with">
      <label>with <select aria-label="Compare with" value=${other.name} onChange=${(/** @type {SelectEvent} */ event) => choose(event.currentTarget.value)}>
        ${options.map((each) => html`<option key=${each.name} value=${each.name} selected=${each.name === other.name}>${each.said}: ${saidOf(STATUSES[rows.status[each.row]], each.name.startsWith("attempt"))}</option>`)}
      </select></label>
      ${options.some((each) => !each.name.startsWith("attempt")) && html`<input size="8" placeholder="iteration" aria-label="Iteration number, then Enter"
        onKeyDown=${(/** @type {FieldKey} */ event) => { if (event.key === "Enter") choose(event.currentTarget.value.replace(/[^\d,]/g, "")); }} />`}
      <button onClick=${() => reveal(model, other.row)}>Open</button>
    </p>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${!diff && !problem && html`<p class="muted">Comparing …</p>`}
    ${diff?.same && html`<p class="notice">Input, output, error, model, tokens and cost are unchanged.</p>`}
    ${diff && diff.changes.length > 0 && html`<${ChangeTable} changes=${diff.changes} a=${other.said} b="this one" />`}`;
}

/** @param {import("./model.js").RunModel} model @param {number} a @param {number} b */
function diffPath(model, a, b) {
  const parameters = new URLSearchParams();
  for (const [prefix, row] of /** @type {[string, number][]} */ ([["", a], ["with_", b]])) {
    const { loopIndex, attempt } = placeOf(model.rows, row);
    parameters.set(`${prefix}attempt`, String(attempt));
    if (loopIndex) parameters.set(`${prefix}loop_index`, loopIndex);
    if (model.rows.position[row]) parameters.set(`${prefix}position`, String(model.rows.position[row]));
  }
  return `${model.path}/steps/${encodeURIComponent(placeOf(model.rows, b).stepId)}/diff?${parameters}`;
}
