// What the run is, and what can be done with it.
import { html, useState } from "../core/html.js";
import { errorOf, get, me } from "../core/api.js";
import { now } from "../core/clock.js";
import { go } from "../core/router.js";
import { count, dayTime, duration, exact, exactTime, oneLine, shortModel, soFar } from "../data/format.js";
import { attemptsOf, costOf, flowOf, hasEnded, soFarOf, stepsDone, stepsExpected } from "../data/run.js";
import { quote } from "../data/search.js";
import { Mark, SAID } from "../parts/status.js";
import { Download } from "../parts/download.js";
import { say } from "../parts/toast.js";
import { Lost } from "../parts/lost.js";
import { Top } from "../parts/top.js";
import { RunAgain } from "./again.js";

/** @param {{model: import("./model.js").RunModel, controls: import("./page.js").Controls}} props */
export function Header({ model, controls }) {
  const run = model.run.value;
  if (!run) return html`<${Top} back />`;
  const going = !hasEnded(run);
  const status = run.status === "completed" && run.totals?.retried ? "retried" : run.status;
  return html`
    <${Top} back>
      <h1 class="run-title">
        <${Mark} status=${status} label=${false} />
        <span class="cut"><bdi>${oneLine(flowOf(run), 200)}</bdi></span>
        ${run.recording && html`<span class="badge" title="Executed by another program, recorded from its trace">${run.triggerType}</span>`}
        ${model.told.content.value.isImported && html`<span class="muted" title="This version came with an imported run and cannot be run">imported</span>`}
      </h1>
      <span class="grow"></span>
      ${going && html`<${StreamState} model=${model} />`}
      <${Actions} model=${model} run=${run} controls=${controls} />
    <//>`;
}

/** What it came to so far. @param {{run: import("../data/run.js").Run}} props */
export function Facts({ run }) {
  const going = !hasEnded(run);
  const tokens = run.totals?.tokens;
  const cost = costOf(run.totals);
  const models = Object.keys(run.totals?.byModel ?? {});
  return html`
    <p class="run-facts">
      <span class=${run.status === "failed" ? "problem" : ""}>${toldOf(run)}</span>
      ${run.startedAt && html`<span title=${`started ${exactTime(run.startedAt)}`}>${dayTime(run.startedAt, now.value)}</span>`}
      ${cost && html`<span title="all model calls, including failed attempts">${cost}</span>`}
      ${tokens && html`<span title=${`${exact(tokens.prompt)} in + ${exact(tokens.completion)} out, all attempts`}>${count(tokens.total, "token")}</span>`}
      ${run.totals && html`<span title=${attemptsOf(run)}>${stepsSaid(run)}</span>`}
      ${models.length > 0 && html`<span class="cut" title=${models.join(", ")}><bdi>${oneLine(models.map(run.recording ? String : shortModel).join(", "), 100)}</bdi></span>`}
      ${run.recording && html`<${Sender} run=${run} told=${run.recording} />`}
      <span class="muted">${!run.recording && run.triggerType}${run.startedBy && html` by <bdi>${oneLine(run.startedBy, 40)}</bdi>`}</span>
      ${run.sessionId && !run.recording?.session && html`<a href=${`/?q=session:${run.sessionId}`} title=${run.sessionId}>session ${run.sessionId.slice(0, 4)}…</a>`}
      ${run.rerunOf && html`<span>rerun of <a href=${`/runs/${encodeURIComponent(run.rerunOf)}`} title=${run.rerunOf}>…${run.rerunOf.slice(-8)}</a>
        ${" "}(<a href=${`/compare/${encodeURIComponent(run.rerunOf)}/${run.id}`}>compare</a>)</span>`}
    </p>`;
}

/** What the sender of a recorded run told of it. @param {{run: import("../data/run.js").Run, told: import("../data/run.js").Recording}} props */
function Sender({ run, told }) {
  const { service, release, environment, session, user, tags = [], continues, notes = [] } = told;
  const link = (/** @type {string} */ id) => html`<a href=${`/runs/${encodeURIComponent(id)}`} title=${id}>…${id.slice(-8)}</a>`;
  return html`
    ${service && html`<span class="cut" title=${service}><a href=${found("service", service)}><bdi>${oneLine(service, 60)}</bdi></a>
      ${release && html` <bdi>${oneLine(release, 40)}</bdi>`}${environment && html` in <bdi>${oneLine(environment, 40)}</bdi>`}</span>`}
    ${session && html`<span class="cut" title=${session}>session <a href=${found("session", session)}><bdi>${oneLine(session, 40)}</bdi></a></span>`}
    ${user && html`<span class="cut" title=${user}>user <a href=${found("user", user)}><bdi>${oneLine(user, 40)}</bdi></a></span>`}
    ${tags.length > 0 && html`<span class="cut" title=${tags.join(", ")}>${tags.map((tag) => html`<a key=${tag} href=${found("tag", tag)}><bdi>#${oneLine(tag, 40)}</bdi></a> `)}</span>`}
    ${continues && html`<span>continues ${link(continues)}</span>`}
    ${run.continuedBy && html`<span>continued in ${link(run.continuedBy)}</span>`}
    ${notes.map((note) => html`<span key=${note} class="cut noted" title=${note}><bdi>${oneLine(note, 200)}</bdi></span>`)}`;
}

/** The list of runs with a value. @param {string} field @param {string} value */
function found(field, value) {
  return `/?${new URLSearchParams({ q: `${field}:${quote(value)}` })}`;
}

/** How it went and how long that took. @param {import("../data/run.js").Run} run */
function toldOf(run) {
  if (!run.startedAt) return SAID[run.status];
  if (hasEnded(run)) return `${SAID[run.status]} in ${duration(run.durationMs)}`;
  const ms = soFarOf(run, now.value);
  return ms === undefined ? "waiting for its end" : `${SAID[run.status]} for ${soFar(ms)}`;
}

/** @param {import("../data/run.js").Run} run */
function stepsSaid(run) {
  const expected = stepsExpected(run);
  return expected === undefined ? count(stepsDone(run), "step") : `${exact(stepsDone(run))} of ${count(expected, "step")}`;
}

/** @param {{model: import("./model.js").RunModel}} props */
function StreamState({ model }) {
  const { value } = model.stream;
  return value === "lost" ? html`<${Lost} />` : value === "live" ? html`<span class="going" role="status">live</span>` : null;
}

/** @param {{model: import("./model.js").RunModel, run: import("../data/run.js").Run, controls: import("./page.js").Controls}} props */
function Actions({ model, run, controls }) {
  const [said, setSaid] = useState("");
  const mayAct = me.value?.role !== "read" && !run.recording;
  const mayCancel = mayAct && !hasEnded(run);
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
    ${said && html`<span key="said" class="problem cut" role="alert" title=${said}>${said}</span>`}
    <span key="actions" class="actions">
      ${mayAct && html`<${RunAgain} key=${run.id} run=${run} isImported=${model.told.content.value.isImported} isOpen=${controls.again} onRefusal=${setSaid} />`}
      ${mayCancel && html`<button onClick=${cancel}>Cancel</button>`}
      <button class=${mayCancel ? "wide" : ""} title="Compare with the last completed run of this flow" onClick=${compare}>Compare</button>
      <a class="button wide" href=${`/?q=flow:${encodeURIComponent(run.flowSlug ?? run.flowId)}`}>Runs of this flow</a>
      <${Download} path=${`/flow-runs/${run.id}/export?format=json`} name=${`${run.id}.json`} label="Export" look="wide" />
      <button class="wide" onClick=${() => controls.copy(location.href, "Link copied")}>Copy link</button>
    </span>`;
}

/** Goes to the comparison with the last run that went well. Throws ApiError. @param {import("../data/run.js").Run} run */
export async function compareWithGood(run) {
  const good = await lastGood(run);
  if (good) go(`/compare/${good}/${run.id}`);
  else say("No other completed run of this flow");
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
