// One run in the list.
import { html } from "../core/html.js";
import { now } from "../core/clock.js";
import { ago, duration, exact, exactTime, oneLine, short, shortMoney, soFar } from "../data/format.js";
import { costOf, flowOf, hasEnded, leastCost, outcomeOf, soFarOf, stepsDone, stepsExpected, unknownCosts } from "../data/run.js";
import { Mark } from "../parts/status.js";
import { go } from "../core/router.js";

/** @param {{run: import("../data/run.js").Run, chosen: boolean, onChoose: () => void}} props */
export function Row({ run, chosen, onChoose }) {
  const href = `/runs/${encodeURIComponent(run.id)}`;
  const going = !hasEnded(run);
  const tokens = run.totals?.tokens?.total;
  const cost = leastCost(run.totals, shortMoney) || (run.totals && unknownCosts(run.totals) && "unknown");
  const [input, result, outcome] = [oneLine(run.inputPreview ?? ""), oneLine(run.resultPreview ?? ""), outcomeOf(run)];
  const retried = run.totals?.retried ?? 0;
  const expected = stepsExpected(run);

  /** @param {MouseEvent} event */
  function open(event) {
    const isText = String(getSelection()) !== "";
    if (/** @type {Element} */ (event.target).closest("a, input, label") || isText) return;
    if (event.ctrlKey || event.metaKey) window.open(href, "_blank", "noopener");
    else go(href);
  }

  return html`
    <tr class=${run.status} onClick=${open} aria-selected=${chosen}>
      <td class="c-choose"><label><input type="checkbox" checked=${chosen} onChange=${onChoose}
        aria-label=${`Select the run of ${flowOf(run)} to compare`} /></label></td>
      <td class="c-status"><${Mark} status=${run.status === "completed" && retried ? "retried" : run.status} /></td>
      <td class="c-flow cut"><a href=${href} data-run=${run.id}><bdi>${run.flowSlug ?? run.flowId}</bdi>
        ${" "}<span class="muted">${run.recording ? html`<bdi>${oneLine(run.recording.name ?? "", 80)}</bdi>`
          : run.version === 0 ? "draft" : run.version ? `v${run.version}` : ""}</span></a></td>
      <td class="c-input cut mono muted" dir="auto" title=${input}>${input}</td>
      <td class="c-outcome cut" dir="auto" title=${[outcome, result].filter(Boolean).join("\n")}>
        ${outcome && html`<bdi class=${run.status === "failed" ? "problem" : "muted"}>${outcome}</bdi>${" "}`}
        ${result && html`<span class="mono">${result}</span>`}</td>
      <td class="c-started" title=${exactTime(run.startedAt)}>${ago(run.startedAt, now.value)}</td>
      <td class="c-duration num">${going && run.startedAt && !run.recording?.entryEnded
        ? html`<span class=${run.status === "running" ? "going" : "muted"}>${soFar(soFarOf(run, now.value))} …</span>` : duration(run.durationMs)}</td>
      <td class="c-steps num" title=${`${exact(stepsDone(run))} attempts ended, ${retried} retried${expected === undefined ? "" : `; ${exact(expected)} steps expected`}`}>
        ${short(stepsDone(run))}${expected !== undefined && `/${short(expected)}`}${retried > 0 && html`<span class="retries"> ↻${short(retried)}</span>`}</td>
      <td class="c-tokens num" title=${tokens ? exact(tokens) : null}>${short(tokens)}</td>
      <td class="c-cost num" title=${costOf(run.totals)}>${cost}</td>
      <td class="c-trigger muted cut" title=${run.startedBy ? `started by ${run.startedBy}` : null}>${run.recording ? html`<span class="badge" title="Executed by another program">${run.triggerType}</span>` : run.triggerType ?? ""}</td>
    </tr>`;
}
