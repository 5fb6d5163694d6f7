// The two runs beside each other, with what each came to.
import { html } from "../core/html.js";
import { duration, exact, exactTime, oneLine } from "../data/format.js";
import { spoken } from "../data/overrides.js";
import { attemptsOf, costOf, flowOf, modelsOf, unknownCosts } from "../data/run.js";
import { Mark, SAID } from "../parts/status.js";

/** @typedef {import("../data/run.js").Run} Run */

/** @param {{a: Run, b: Run}} props */
export function Sides({ a, b }) {
  const lines = [
    ["duration", duration(a.durationMs), duration(b.durationMs), change(a.durationMs, b.durationMs)],
    ["tokens", tokensOf(a), tokensOf(b), change(a.totals?.tokens?.total, b.totals?.tokens?.total)],
    ["cost", costOf(a.totals), costOf(b.totals), costChange(a, b)],
    ["models", modelsIn(a), modelsIn(b), ""],
    ["overrides", overridesIn(a), overridesIn(b), ""],
    ["attempts", attemptsOf(a), attemptsOf(b), ""],
    ["input", oneLine(a.inputPreview ?? ""), oneLine(b.inputPreview ?? ""), ""],
    ["result", oneLine(a.resultPreview ?? ""), oneLine(b.resultPreview ?? ""), ""],
    ["error", errorOf(a), errorOf(b), ""],
  ];
  return html`
    <table class="sides">
      <thead><tr><td></td><${Head} run=${a} name="A" /><${Head} run=${b} name="B" /><th scope="col" class="muted">change</th></tr></thead>
      <tbody>${lines.filter(([, left, right]) => left || right).map(([name, left, right, by]) => html`
        <tr key=${name} class=${left === right ? "is-same" : ""}><th scope="row" class="muted">${name}</th>
          <td class="cut" title=${left}><bdi>${left}</bdi></td><td class="cut" title=${right}><bdi>${right}</bdi></td><td class="muted">${by}</td></tr>`)}</tbody>
    </table>`;
}

/** @param {{run: Run, name: string}} props */
function Head({ run, name }) {
  return html`<th scope="col" class="cut">
    <span class="side-name">${name}</span> <${Mark} status=${run.status} />${" "}
    <a href=${`/runs/${run.id}`} title=${`${SAID[run.status]}, ${run.id}`}><bdi>${flowOf(run)}</bdi></a>
    <span class="muted side-time"> ${exactTime(run.startedAt).slice(0, 19)}</span></th>`;
}

/** @param {Run} run */
function tokensOf(run) {
  return run.totals?.tokens ? exact(run.totals.tokens.total) : "";
}

/** What is not known of a cost may be more than what has changed of it. @param {Run} a @param {Run} b */
function costChange({ totals: a }, { totals: b }) {
  return !a || !b || unknownCosts(a) || unknownCosts(b) ? "" : change(Number(a.costUsd), Number(b.costUsd));
}

/** The models that were called, with what each cost where there are several. @param {Run} run */
function modelsIn(run) {
  const several = modelsOf(run);
  const said = several.length ? several.map(([name, costs]) => `${name} ${costs}`) : Object.keys(run.totals?.byModel ?? {});
  return oneLine(said.join("; "));
}

/** @param {Run} run */
function overridesIn({ overridden }) {
  return oneLine(overridden?.map(spoken).join(", ") ?? "");
}

/** @param {Run} run */
function errorOf({ error }) {
  return error ? oneLine(`${error.stepId ? `${error.stepId}: ` : ""}${error.code} ${error.message ?? ""}`) : "";
}

/** How much more or less, in percent. @param {number|undefined} a @param {number|undefined} b */
function change(a, b) {
  if (!a || b === undefined || !Number.isFinite(b) || a === b) return "";
  const percent = ((b - a) / a) * 100;
  const shown = Math.abs(percent) < 10 ? percent.toFixed(1) : exact(Math.round(percent));
  return `${percent > 0 ? "+" : "−"}${String(shown).replace("-", "")} %`;
}
