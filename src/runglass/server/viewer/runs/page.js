// The runs of the project, newest first: what is asked for is in the address.
import { currentOf, html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../core/html.js";
import { ApiError, get, me } from "../core/api.js";
import { now } from "../core/clock.js";
import { bind } from "../core/keys.js";
import { go, place, setQuery } from "../core/router.js";
import { count, dayTime } from "../data/format.js";
import { namesIn, withFields } from "../data/search.js";
import { Lost } from "../parts/lost.js";
import { Top } from "../parts/top.js";
import { Histogram } from "./histogram.js";
import { QueryBox } from "./query_box.js";
import { Row } from "./row.js";
import { RunList } from "./run_list.js";

const HEADS = [["c-choose", ""], ["c-status", ""], ["c-flow", "flow"], ["c-input", "input"], ["c-outcome", "result"],
  ["c-started", "started"], ["c-duration num", "duration"], ["c-steps num", "steps"], ["c-tokens num", "tokens"], ["c-cost num", "cost"],
  ["c-trigger", "trigger"]];

/** The list that was shown last, which whoever comes back finds as it was left. @type {RunList|null} */
let last = null;

/** @param {string} query */
function listOf(query) {
  const before = last?.who === me.peek() ? last : null;
  last = before?.query === query ? before : new RunList(query, before);
  return last;
}

export function RunsPage() {
  const query = place.value.query.get("q") ?? "";
  const list = useMemo(() => listOf(query), [query]);
  const { chosen } = list;
  /** @type {import("../core/html.js").Ref<HTMLInputElement>} */
  const field = useRef(null);
  /** @type {import("../core/html.js").Ref<HTMLElement>} */
  const scroller = useRef(null);

  useEffect(() => { document.title = query ? `${query} – Runglass` : "Runs – Runglass"; }, [query]);
  useEffect(() => {
    list.mayMove = () => (scroller.current?.scrollTop ?? 0) === 0 && !scroller.current?.matches(":hover, :focus-within");
    list.open();
    return () => list.close();
  }, [list]);
  useLayoutEffect(() => { currentOf(scroller).scrollTop = list.top; }, [list]);

  const ask = (/** @type {string} */ text, { push } = { push: true }) => setQuery({ q: text }, { push });
  /** @param {number} by */
  function move(by) {
    const all = /** @type {HTMLElement[]} */ ([...(scroller.current?.querySelectorAll("a[data-run]") ?? [])]);
    const at = all.findIndex((link) => link === document.activeElement);
    const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
    next?.focus();
    next?.closest("tr")?.scrollIntoView({ block: "nearest" });
  }
  const focused = () => document.activeElement?.getAttribute("data-run");
  /** @param {string} id */
  function choose(id) {
    chosen.value = chosen.value.includes(id) ? chosen.value.filter((each) => each !== id) : [...chosen.value, id].slice(-2);
  }
  function compare() {
    // The older run first: what has become different since.
    if (chosen.value.length === 2) go(`/compare/${[...chosen.value].sort().join("/")}`);
  }
  function showArrived() {
    list.top = 0;
    list.showArrived();
    scroller.current?.scrollTo({ top: 0 });
  }

  useEffect(() => bind([
    { key: "j", isMotion: true, what: "next run", run: () => move(1) },
    { key: "k", isMotion: true, what: "previous run", run: () => move(-1) },
    { key: "ArrowDown", what: "", run: () => move(1) },
    { key: "ArrowUp", what: "", run: () => move(-1) },
    { key: "Enter", what: "open the run", run: () => { const id = focused(); if (id) go(`/runs/${id}`); } },
    { key: "x", what: "select the run to compare", run: () => { const id = focused(); if (id) choose(id); } },
    { key: "c", what: "compare the selected runs", run: compare },
    { key: "/", what: "go to the query", run: () => { field.current?.focus(); field.current?.select(); } },
    { key: ".", what: "show new runs", run: showArrived },
  ]), [list]);

  /** @param {import("../core/html.js").EventOf<HTMLElement>} event */
  function scrolled({ currentTarget: { scrollHeight, scrollTop, clientHeight } }) {
    list.top = scrollTop;
    const near = scrollHeight - scrollTop - clientHeight < 600;
    if (near && list.cursor.value && !list.loading.value && !list.isStopped && !list.problem.value) list.more();
  }

  const runs = list.runs.value;
  const problem = list.problem.value;
  const arrived = list.arrived.value.length;
  const isQueryWrong = problem instanceof ApiError && problem.status === 422;
  return html`
    <${Top}><span class="grow"></span><//>
    <main class="runs">
      <h1 class="hidden-label">Runs</h1>
      <${QueryBox} query=${query} problem=${isQueryWrong ? problem : null} onQuery=${ask} fieldRef=${field} />
      <${Histogram} query=${query} changes=${list.changes.value}
        onTime=${(/** @type {number} */ since, /** @type {number} */ until) => ask(withFields(query, { since: iso(since), until: iso(until) }))} />
      <div class="list-bar">
        <span class="muted" role="status">${said(runs.length, list)}</span>
        ${list.searchedTo.value > 0 && html`<button onClick=${() => list.stop()}>Stop</button>`}
        ${arrived > 0 && html`<button onClick=${showArrived}>${count(arrived, "new run")} <kbd>.</kbd></button>`}
        ${list.stream.value === "lost" && html`<${Lost} />`}
        ${list.refusal.value && html`<span class="problem" role="alert">The list is not live: ${list.refusal.value.message}
          <button onClick=${() => list.reload()}>Reload the list</button></span>`}
        <span class="grow"></span>
        ${chosen.value.length > 0 && html`
          <button class="primary" disabled=${chosen.value.length !== 2} onClick=${compare}>
            ${chosen.value.length === 2 ? "Compare runs" : "Select another run to compare"}</button>
          <button class="plain" onClick=${() => { chosen.value = []; }}>Clear</button>`}
      </div>
      <div class="scroller" ref=${scroller} onScroll=${scrolled} tabindex="-1" aria-busy=${list.isOld.value}>
        ${runs.length > 0 && html`
          <table>
            <thead><tr>${HEADS.map(([name, title]) => html`<th key=${name} scope="col" class=${name}>
              ${title || html`<span class="hidden-label">${name === "c-status" ? "status" : "select"}</span>`}</th>`)}</tr></thead>
            <tbody>${runs.map((run) => html`<${Row} key=${run.id} run=${run}
              chosen=${chosen.value.includes(run.id)} onChoose=${() => choose(run.id)} />`)}</tbody>
          </table>`}
        ${isQueryWrong && html`<div class="empty"><h2>Invalid query</h2>
          <button onClick=${() => ask("")}>Show all runs</button></div>`}
        ${problem && !isQueryWrong && html`
          <div class="empty" role="alert"><h2>The runs cannot be shown</h2><p>${problem.message}</p>
            <button onClick=${() => list.more()}>Try again</button></div>`}
        ${!runs.length && !list.loading.value && !problem && (list.cursor.value ? null : html`<${Nothing} query=${query} onAll=${() => ask("")} />`)}
        ${list.cursor.value && !problem && html`
          <p class="more"><button disabled=${list.loading.value} onClick=${() => list.more()}>
            ${list.loading.value ? "Loading …" : list.isStopped ? "Search further back" : "More"}</button></p>`}
      </div>
    </main>`;
}

/** @param {number} number @param {RunList} list */
function said(number, list) {
  const searchedTo = list.searchedTo.value;
  if (list.loading.value && !number && !searchedTo) return "Loading …";
  const found = number || list.cursor.value ? `${count(number, "run")}${list.cursor.value ? " so far" : ""}` : "";
  if (list.isStopped && list.cursor.value) return `${found}; search stopped, older runs were not searched`;
  return searchedTo ? `${found}; searched back to ${dayTime(iso(searchedTo), now.value)}, searching …` : found;
}

/** @param {number} ms */
function iso(ms) {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

/** @typedef {{field: string, name: string}} Named */

/** @type {Record<string, string>} */
const UNKNOWN = { step: "has run a step", model: "has called a model" };

/** @param {{query: string, onAll: () => void}} props */
function Nothing({ query, onAll }) {
  const [unknown, setUnknown] = useState(/** @type {Named[]} */ ([]));
  useEffect(() => {
    const abort = new AbortController();
    setUnknown([]);
    unknownIn(query, abort.signal).then(setUnknown, () => {});
    return () => abort.abort();
  }, [query]);
  return query
    ? html`<div class="empty"><h2>No run matches</h2><p><code>${query}</code></p>
        ${unknown.map(({ field, name }) => html`<p key=${`${field}:${name}`}>No run of this project ${UNKNOWN[field]} <code>${name}</code>.</p>`)}
        <button onClick=${onAll}>Show all runs</button></div>`
    : html`<div class="empty"><h2>No runs yet</h2>
        <p>Runs of this project appear here as they start. From a terminal:</p>
        <p><code>${`runglass run ${me.value?.org ?? "ORG"}/${me.value?.project ?? "PROJECT"}/FLOW --message "Hello"`}</code></p></div>`;
}

/** The names that no run has, as far as one request for each can tell. @param {string} query @param {AbortSignal} abort */
async function unknownIn(query, abort) {
  const asked = await Promise.all(namesIn(query).map(async (named) => {
    const parameters = new URLSearchParams({ q: `${named.field}:"${named.name}"`, limit: "1" });
    const page = await get(`/flow-runs?${parameters}`, abort);
    return { named, isUnknown: page.runs.length === 0 && page.nextCursor === null };
  }));
  return asked.filter((each) => each.isUnknown).map((each) => each.named);
}
