// What the run is and what came of it, in two lines.
import { html, useState } from "../core/html.js";
import { errorOf, get, me } from "../core/api.js";
import { now } from "../core/clock.js";
import { go } from "../core/router.js";
import { clockTime, duration, exact, exactTime, money, oneLine } from "../data/format.js";
import { cancelledBy, flowOf, hasEnded, remarksOf, soFarOf } from "../data/run.js";
import { CANCELLED, FAILED } from "../data/columns.js";
import { titleOf } from "../data/address.js";
import { Mark, SAID } from "../parts/status.js";
import { say } from "../parts/toast.js";
import { Top } from "../parts/top.js";

/** @param {{model: import("./model.js").RunModel, controls: import("./page.js").Controls}} props */
export function Header({ model, controls }) {
  const run = model.run.value;
  if (!run) return html`<${Top} back />`;
  const going = !hasEnded(run);
  const tokens = run.totals?.tokens?.total;
  const status = run.status === "completed" && run.totals?.retried ? "retried" : run.status;
  return html`
    <${Top} back>
      <h1 class="run-title">
        <${Mark} status=${status} label=${false} />
        <span class="cut"><bdi>${flowOf(run)}</bdi></span>
      </h1>
      <span class="run-facts cut">
        <span>${SAID[run.status]} ${run.startedAt && html`${going ? "for" : "in"} ${duration(going ? soFarOf(run, now.value) : run.durationMs)}`}</span>
        ${tokens !== undefined && html`<span title="tokens in and out, all attempts">${exact(tokens)} tokens</span>`}
        ${run.totals?.costUsd && html`<span>${money(run.totals.costUsd)}</span>`}
        ${run.startedAt && html`<span class="muted" title=${exactTime(run.startedAt)}>started ${clockTime(run.startedAt)}</span>`}
        <span class="muted">${run.triggerType}${run.startedBy ? ` by ${oneLine(run.startedBy, 40)}` : ""}</span>
        ${run.sessionId && html`<a href=${`/?q=session:${run.sessionId}`} title=${run.sessionId}>session ${run.sessionId.slice(0, 4)}…</a>`}
      </span>
      <span class="grow"></span>
      ${going && html`<${StreamState} model=${model} />`}
      <${Actions} model=${model} run=${run} controls=${controls} />
    <//>`;
}

/** @param {{model: import("./model.js").RunModel}} props */
function StreamState({ model }) {
  return model.stream.value === "lost"
    ? html`<span class="problem" role="status">connection lost, trying again …</span>`
    : html`<span class="going" role="status">live</span>`;
}

/** @param {{model: import("./model.js").RunModel, run: import("../data/run.js").Run, controls: import("./page.js").Controls}} props */
function Actions({ model, run, controls }) {
  const [said, setSaid] = useState("");
  const mayCancel = !hasEnded(run) && me.value?.role !== "read";
  async function cancel() {
    if (!confirm(`Cancel this run of ${flowOf(run)}? What it has done stays in the trace.`)) return;
    try {
      await model.cancel();
    } catch (error) {
      setSaid(errorOf(error).message);
    }
  }
  const compare = () => compareWithGood(run).catch((error) => setSaid(errorOf(error).message));
  return html`
    ${said && html`<span class="problem cut" role="alert" title=${said}>${said}</span>`}
    <span class="actions">
      ${mayCancel && html`<button onClick=${cancel}>Cancel</button>`}
      <button title="Compare with the last run of this flow that went well" onClick=${compare}>Compare</button>
      <a class="button wide" href=${`/?q=flow:${encodeURIComponent(run.flowSlug ?? run.flowId)}`}>Runs of this flow</a>
      <a class="button wide" href=${`/api/v1/flow-runs/${run.id}/export?format=json`} download=${`${run.id}.json`}>Export</a>
      <button class="wide" onClick=${() => controls.copy(location.href, "The link is copied")}>Copy link</button>
    </span>`;
}

/** Goes to the comparison with the last run that went well. Throws ApiError. @param {import("../data/run.js").Run} run */
export async function compareWithGood(run) {
  const good = await lastGood(run);
  if (good) go(`/compare/${good}/${run.id}`);
  else say("No other run of this flow went well");
}

/** The id of the newest other run of the flow that went well, one from before it if there is one.
 * @param {import("../data/run.js").Run} run */
async function lastGood(run) {
  const query = `flow:${run.flowSlug ?? run.flowId} status:completed`;
  for (const until of run.startedAt ? [` until:${run.startedAt}`, ""] : [""]) {
    const { runs } = await get(`/flow-runs?${new URLSearchParams({ q: query + until, limit: "2" })}`);
    const good = runs.find((/** @type {{id: string}} */ each) => each.id !== run.id);
    if (good) return good.id;
  }
  return "";
}

/** Why the run failed or was cancelled, and the way there; or what to beware of in one that went well.
 * @param {{model: import("./model.js").RunModel, onGo: (row: number) => void}} props */
export function Why({ model, onGo }) {
  const run = model.run.value;
  const { rows } = model;
  const isKnown = model.changes.value >= 0 && rows.rootFirst !== -1;
  if (!run?.error) {
    if (run?.status === "paused") return html`<p class="why muted">It waits for its caller: for the results of tools, or for the next step.</p>`;
    const remarks = run ? remarksOf(run) : "";
    return remarks ? html`<p class="why muted"><span class="cut" title=${remarks}>${remarks}</span></p>` : null;
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

/** The first leaf with a status. @param {import("../data/columns.js").Rows} rows @param {number} status
 * @param {string|undefined} stepId */
function firstWith(rows, status, stepId) {
  for (let row = rows.rootFirst; row !== -1;) {
    // What is inside of a row is no worse than the row.
    if (rows.status[row] < status) row = rows.after(row);
    else if (rows.status[row] === status && rows.children[row] === 0 && (!stepId || rows.nameOf(row) === stepId)) return row;
    else row = rows.following(row);
  }
  return -1;
}
