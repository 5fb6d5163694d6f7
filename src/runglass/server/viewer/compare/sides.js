// The two runs beside each other, with what each came to.
import { html } from "../core/html.js";
import { duration, exact, exactTime, money, oneLine } from "../data/format.js";
import { flowOf } from "../data/run.js";
import { Mark, SAID } from "../parts/status.js";

/** @typedef {import("../data/run.js").Run} Run */

/** @param {{a: Run, b: Run}} props */
export function Sides({ a, b }) {
  const lines = [
    ["duration", duration(a.durationMs), duration(b.durationMs), change(a.durationMs, b.durationMs)],
    ["tokens", tokensOf(a), tokensOf(b), change(a.totals?.tokens?.total, b.totals?.tokens?.total)],
    ["cost", money(a.totals?.costUsd), money(b.totals?.costUsd), change(Number(a.totals?.costUsd), Number(b.totals?.costUsd))],
    ["attempts", attemptsOf(a), attemptsOf(b), ""],
    ["error", errorOf(a), errorOf(b), ""],
  ];
  return html`
    <table class="sides">
      <thead><tr><td></td><${Head} run=${a} name="A" /><${Head} run=${b} name="B" /><th scope="col" class="muted">from A to B</th></tr></thead>
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

/** @param {Run} run */
function attemptsOf({ totals }) {
  if (!totals) return "";
  const parts = [`${exact(totals.completed)} completed`];
  const cancelled = totals.cancelled ?? 0;
  const { retried, skipped } = totals;
  for (const [name, number] of Object.entries({ failed: totals.failed - cancelled, cancelled, retried, skipped })) {
    if (number) parts.push(`${exact(number)} ${name}`);
  }
  return parts.join(", ");
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
