// Why the run is as it is, in a sentence, and the way to where it shows.
import { html } from "../core/html.js";
import { titleOf } from "../data/address.js";
import { CANCELLED, FAILED, NONE, RUNNING, WAITING } from "../data/columns.js";
import { oneLine } from "../data/format.js";
import { cancelledBy } from "../data/run.js";

/** Why the run failed or was cancelled, what it waits for or does now, and the way there.
 * @param {{model: import("./model.js").RunModel, onGo: (row: number) => void}} props */
export function Why({ model, onGo }) {
  const run = model.run.value;
  const { rows } = model;
  if (!run) return null;
  const isKnown = model.changes.value >= 0 && rows.rootFirst !== NONE;
  const row = isKnown ? rowOf(rows, run) : NONE;
  const where = row === NONE ? "" : oneLine(titleOf(rows, row));
  return html`
    <div class=${`box why ${run.status}`}>
      <h2>${run.status === "paused" && where ? "Waiting for tool results" : NAMES[run.status] ?? "Result"}<span class="grow"></span>
        ${row !== NONE && html`<button onClick=${() => onGo(row)}>Go there${run.status === "failed" && html` <kbd>e</kbd>`}</button>`}</h2>
      <div class="box-inside" tabindex="0" role="group" aria-label="Why">${said(run, where)}</div>
    </div>`;
}

/** @type {Record<string, string>} */
const NAMES = { failed: "Error", cancelled: "Cancelled", paused: "Waiting", running: "Running" };

/** @param {import("../data/run.js").Run} run @param {string} where of which row it is said, empty where none */
function said(run, where) {
  const { status, error } = run;
  if (status === "cancelled") return html`<p><bdi>${cancelledBy(run)}</bdi>${where && html`; during <bdi>${where}</bdi>`}</p>`;
  if (status === "paused") {
    return where ? html`<p><bdi>${where}</bdi> called tools; the run continues when its caller sends the results</p>`
      : html`<p>Waiting for the next call of the step-through</p>`;
  }
  if (status === "running" && run.recording?.entryEnded) return html`<p>Its entry span has ended. The run stays open for late spans.</p>`;
  if (status === "running" && run.recording && !where) return html`<p>Waiting for more spans.</p>`;
  if (status === "running") return html`<p>${where ? html`<bdi>${where}</bdi>` : "between two steps"}</p>`;
  if (!error) return html`<p class="muted">None yet.</p>`;
  const place = where || error.stepId;
  return html`<p>${place && html`<bdi>${oneLine(place)}</bdi> — `}<span class="mono">${error.code}</span>${
    error.message && html`: <bdi>${oneLine(error.message, 2000)}</bdi>`}</p>`;
}

/** The row that tells why the run is as it is. @param {import("../data/columns.js").Rows} rows @param {import("../data/run.js").Run} run */
function rowOf(rows, { status, error }) {
  if (status === "running") return lastRunning(rows);
  if (status === "paused") return firstWith(rows, WAITING);
  return error ? firstWith(rows, status === "cancelled" ? CANCELLED : FAILED, error.stepId) : NONE;
}

/** The first leaf with a status. @param {import("../data/columns.js").Rows} rows @param {number} status
 * @param {string} [stepId] */
function firstWith(rows, status, stepId) {
  if (rows.isRecorded) {
    for (let row = 0; row < rows.count; row += 1) if (rows.status[row] === status && (!stepId || rows.stepIdOf(row) === stepId)) return row;
    return NONE;
  }
  for (let row = rows.rootFirst; row !== -1;) {
    // What is inside of a row is no worse than the row.
    if (rows.status[row] < status) row = rows.after(row);
    else if (rows.status[row] === status && rows.children[row] === 0 && (!stepId || rows.nameOf(row) === stepId)) return row;
    else row = rows.following(row);
  }
  return -1;
}

/** The last leaf that runs: long loops go on at their end. @param {import("../data/columns.js").Rows} rows */
function lastRunning(rows) {
  if (rows.isRecorded) {
    let row = rows.count - 1;
    while (row >= 0 && (rows.status[row] !== RUNNING || rows.position[row] === 0)) row -= 1;
    return row;
  }
  let row = rows.rootLast;
  while (row !== NONE) {
    if (rows.open[row] > 0 && rows.children[row] === 0 && rows.status[row] === RUNNING) return row;
    if (rows.open[row] > 0 && rows.children[row] > 0) row = rows.last[row];
    else {
      while (row !== NONE && rows.prev[row] === NONE) row = rows.parent[row];
      if (row !== NONE) row = rows.prev[row];
    }
  }
  return NONE;
}
