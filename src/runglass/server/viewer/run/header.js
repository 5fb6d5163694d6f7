// What the run is, and what can be done with it.
import { html, useState } from "../core/html.js";
import { errorOf, get, me } from "../core/api.js";
import { now } from "../core/clock.js";
import { go } from "../core/router.js";
import { clockTime, duration, exact, exactTime, money, oneLine, soFar } from "../data/format.js";
import { flowOf, hasEnded, soFarOf } from "../data/run.js";
import { Mark, SAID } from "../parts/status.js";
import { say } from "../parts/toast.js";
import { Lost } from "../parts/lost.js";
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
      <span class="run-facts">
        <span>${SAID[run.status]} ${run.startedAt && html`${going ? "for" : "in"} ${going ? soFar(soFarOf(run, now.value)) : duration(run.durationMs)}`}</span>
        ${tokens !== undefined && html`<span title="tokens in and out, all attempts">${exact(tokens)} tokens</span>`}
        ${run.totals?.costUsd && html`<span>${money(run.totals.costUsd)}</span>`}
        ${run.startedAt && html`<span class="muted" title=${exactTime(run.startedAt)}>started ${clockTime(run.startedAt)}</span>`}
        <span class="muted">${run.triggerType}</span>
        ${run.startedBy && html`<span class="muted">by ${oneLine(run.startedBy, 40)}</span>`}
        ${run.sessionId && html`<a href=${`/?q=session:${run.sessionId}`} title=${run.sessionId}>session ${run.sessionId.slice(0, 4)}…</a>`}
      </span>
      <span class="grow"></span>
      ${going && html`<${StreamState} model=${model} />`}
      <${Actions} model=${model} run=${run} controls=${controls} />
    <//>`;
}

/** @param {{model: import("./model.js").RunModel}} props */
function StreamState({ model }) {
  return model.stream.value === "lost" ? html`<${Lost} />`
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
      <button class=${mayCancel ? "wide" : ""} title="Compare with the last run of this flow that went well" onClick=${compare}>Compare</button>
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
