// Why the run is as it is, in one line, and the way to where it shows.
import { html } from "../core/html.js";
import { titleOf } from "../data/address.js";
import { CANCELLED, FAILED, NONE, RUNNING, WAITING } from "../data/columns.js";
import { CUT } from "../data/filter.js";
import { oneLine } from "../data/format.js";
import { cancelledBy, remarksOf } from "../data/run.js";
import { SAID } from "../parts/status.js";

/** Why the run failed or was cancelled, and the way there; or what to beware of in one that went well.
 * @param {{model: import("./model.js").RunModel, onGo: (row: number) => void}} props */
export function Why({ model, onGo }) {
  const run = model.run.value;
  const { rows } = model;
  const isKnown = model.changes.value >= 0 && rows.rootFirst !== -1;
  if (!run?.error) {
    if (run?.status === "paused") {
      const waiting = isKnown ? firstWith(rows, WAITING) : -1;
      if (waiting < 0) return html`<p class="why"><b>waits</b> <span>for its caller, who goes through it step by step</span></p>`;
      return html`<p class="why"><b>waits</b>
        <span class="cut"><bdi>${oneLine(titleOf(rows, waiting))}</bdi> has asked for tools; the run goes on once its caller sends their results</span>
        <button onClick=${() => onGo(waiting)}>Go there</button></p>`;
    }
    if (run?.status === "running" && isKnown) {
      const running = lastRunning(rows);
      return html`<p class="why"><b>now</b>
        <span class="cut">${running < 0 ? "between two steps" : html`<bdi>${oneLine(titleOf(rows, running))}</bdi>`}</span>
        ${running >= 0 && html`<button onClick=${() => onGo(running)}>Go there</button>`}</p>`;
    }
    const remarks = run ? remarksOf(run) : "";
    if (remarks) {
      return html`<p class="why"><b>beware</b> <span class="cut" title=${remarks}>${remarks}</span>
        ${isKnown && rows.cut.size > 0 && html`<${OnlyCut} model=${model} />`}</p>`;
    }
    // Who has followed it has a line here, which is not taken away under the cursor.
    return run && model.stream.value === "ended" ? html`<p class="why muted">It ended while you looked: ${SAID[run.status]}</p>` : null;
  }
  const isCancelled = run.status === "cancelled";
  const row = isKnown ? firstWith(rows, isCancelled ? CANCELLED : FAILED, run.error.stepId) : -1;
  if (isCancelled) {
    const reason = cancelledBy(run);
    return html`
    <p class="why cancelled">
      <b>why</b>
      <span class="cut" title=${reason}><bdi>${reason}</bdi>${
        row >= 0 && html`; it was in <bdi>${oneLine(titleOf(rows, row))}</bdi>`}</span>
      ${row >= 0 && html`<button onClick=${() => onGo(row)}>Go there</button>`}
    </p>`;
  }
  const where = row >= 0 ? titleOf(rows, row) : run.error.stepId;
  return html`
    <p class=${`why ${run.status}`}>
      <b>why</b>
      <span class="cut" title=${oneLine(run.error.message ?? "", 2000)}>
        ${where && html`<bdi>${oneLine(where)}</bdi> — `}<span class="mono">${run.error.code}</span>
        ${run.error.message && html`: <bdi>${oneLine(run.error.message)}</bdi>`}</span>
      ${row >= 0 && html`<button onClick=${() => onGo(row)}>Go there <kbd>e</kbd></button>`}
    </p>`;
}

/** Shows those alone of which the text was cut, or all again. @param {{model: import("./model.js").RunModel}} props */
function OnlyCut({ model }) {
  const isOn = model.filter.value.text === CUT;
  return html`<button aria-pressed=${isOn} onClick=${() => model.setFilter({ text: isOn ? "" : CUT })}>Only what was cut</button>`;
}

/** The first leaf with a status. @param {import("../data/columns.js").Rows} rows @param {number} status
 * @param {string} [stepId] */
function firstWith(rows, status, stepId) {
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
