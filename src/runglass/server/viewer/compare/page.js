// Two runs: the first place where they part, and then each attempt that differs.
import { html, useEffect, useMemo, useSignal } from "../core/html.js";
import { get } from "../core/api.js";
import { bind } from "../core/keys.js";
import { go, place, setQuery } from "../core/router.js";
import { count, duration, exact, exactTime, oneLine } from "../data/format.js";
import { spoken } from "../data/overrides.js";
import { attemptsOf, costOf, flowOf, modelsOf, unknownCosts } from "../data/run.js";
import { Mark, SAID } from "../parts/status.js";
import { Top } from "../parts/top.js";
import { DiffRow } from "./row.js";

const PAGE = 100;
const OF_FLOWS = {
  drafts: "Both are runs of the draft, which may have changed in between.",
  versions: "Different versions of the flow: steps that only one of them has are marked.",
  different: "Different flows: only steps with the same id are paired.",
};

/** @typedef {import("../data/run.js").Run} Run */
/** @typedef {{a: Run, b: Run, flows: "same"|"drafts"|"versions"|"different", firstDivergence?: {sentence: string}, cut?: boolean,
 *   sameRows: number, differentRows: number, sizeOnlyRows?: number, rows: import("./row.js").DiffRowData[]}} Diff */

/** @param {{a: string, b: string}} props */
export function ComparePage({ a, b }) {
  /** @type {import("../vendor/signals.js").Signal<Diff|null>} */
  const found = useSignal(null);
  /** @type {import("../vendor/signals.js").Signal<Error|null>} */
  const problem = useSignal(null);
  const most = useSignal(PAGE);
  const all = place.value.query.get("all") === "true";
  const path = useMemo(() => `/flow-runs/${encodeURIComponent(a)}/diff/${encodeURIComponent(b)}`, [a, b]);

  useEffect(() => {
    const abort = new AbortController();
    document.title = "Compare runs – Runglass";
    get(`${path}${all ? "?all=true" : ""}`, abort.signal).then(
      (diff) => {
        found.value = diff;
        problem.value = null;
        document.title = `${flowOf(diff.a)} and ${flowOf(diff.b)} – Runglass`;
      },
      (error) => { if (!abort.signal.aborted) problem.value = error; },
    );
    return () => abort.abort();
  }, [path, all]);

  /** @param {number} by */
  function move(by) {
    const lines = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".diff-row > button")]);
    const at = lines.findIndex((line) => line === document.activeElement);
    lines[Math.min(lines.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
  }
  const swap = () => go(`/compare/${b}/${a}`);
  const toggleSame = () => setQuery({ all: all ? null : "true" });
  useEffect(() => bind([
    { key: "j", isMotion: true, what: "next difference", run: () => move(1) },
    { key: "k", isMotion: true, what: "previous difference", run: () => move(-1) },
    { key: "ArrowDown", what: "", run: () => move(1) },
    { key: "ArrowUp", what: "", run: () => move(-1) },
    { key: "x", what: "swap the two runs", run: swap },
    { key: "a", what: "show unchanged", run: toggleSame },
    { key: "u", what: "back to the runs", run: () => go("/") },
  ]), [all, a, b]);

  const diff = found.value;
  if (problem.value && !diff) {
    return html`<${Top} back /><main class="empty"><div role="alert"><h1>The runs cannot be compared</h1><p>${problem.value.message}</p></div></main>`;
  }
  if (!diff) return html`<${Top} back /><main class="empty"><p>Comparing …</p></main>`;
  const first = diff.firstDivergence;
  return html`
    <${Top} back>
      <h1 class="run-title">Compare runs</h1><span class="grow"></span>
      <button onClick=${swap}>Swap <kbd>x</kbd></button>
    <//>
    <main class="compare">
      <${Sides} a=${diff.a} b=${diff.b} />
      ${diff.flows !== "same" && html`<p class="notice">${OF_FLOWS[diff.flows]}</p>`}
      <p class=${`first ${first ? "differs" : ""}`}>
        <b>${first ? "first difference" : "no difference"}</b>
        <span><bdi>${first ? first.sentence : diff.cut ? "in the part that was compared" : "All attempts are equal, apart from their durations."}</bdi></span>
      </p>
      <p class="diff-bar muted">
        <span>${count(diff.differentRows, "attempt")} ${diff.differentRows === 1 ? "differs" : "differ"}, ${count(diff.sameRows, "attempt")} unchanged${diff.sizeOnlyRows ? `; of ${count(diff.sizeOnlyRows, "attempt")} only sizes were compared: content was not kept` : ""}</span>
        <button aria-pressed=${all} onClick=${toggleSame}>Show unchanged <kbd>a</kbd></button>
      </p>
      ${diff.cut && html`<p class="notice">The comparison is incomplete: the runs exceed its limits.</p>`}
      <ul class="diff-rows" aria-label="Attempts">
        ${diff.rows.slice(0, most.value).map((row, at) => html`<${DiffRow} key=${`${row.stepId} ${row.loopPath ?? ""} ${row.attempt}`}
          row=${row} a=${a} b=${b} isOpenAtFirst=${at === 0 && !all} />`)}
      </ul>
      ${diff.rows.length > most.value && html`<p class="more"><button onClick=${() => { most.value += PAGE * 5; }}>
        ${count(diff.rows.length - most.value, "more row")}</button></p>`}
    </main>`;
}

/** The two runs beside each other, with what each came to. @param {{a: Run, b: Run}} props */
function Sides({ a, b }) {
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
