// One run: its tree, its times, and all that is kept of what is selected.
import { html, signal, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../core/html.js";
import { ApiError, me } from "../core/api.js";
import { bind } from "../core/keys.js";
import { go, place, setQuery } from "../core/router.js";
import { addressIn, addressOf, isLeaf, queryOf, rowAt, TABS, titleOf } from "../data/address.js";
import { NONE, STATUSES } from "../data/columns.js";
import { exact } from "../data/format.js";
import { flowOf } from "../data/run.js";
import { finder, paletteIsOpen } from "../parts/palette.js";
import { SAID } from "../parts/status.js";
import { copy, say } from "../parts/toast.js";
import { Top } from "../parts/top.js";
import { Boxes } from "./boxes.js";
import { Grid } from "./grid.js";
import { compareWithGood, Facts, Header } from "./header.js";
import { Minimap } from "./minimap.js";
import { RunModel } from "./model.js";
import { fold, most, move, nextError, reveal, unfold } from "./moves.js";
import { Panel } from "./panel.js";
import { Toolbar } from "./toolbar.js";

/** @typedef {import("../data/address.js").Address} Address */

const NARROW = "(max-width: 700px)";
const LATE_MS = 100;

/** What is shown and how, beside the rows themselves. @typedef {ReturnType<typeof controlsOf>} Controls */
function controlsOf() {
  return {
    by: signal("time"), window: signal(/** @type {import("../data/time_axis.js").Span|null} */ (null)), foldIdle: signal(false),
    panel: signal(false), follows: signal(false), hasTime: signal(!matchMedia(NARROW).matches),
    again: signal(false), grid: signal(/** @type {import("./grid.js").GridPainter|null} */ (null)), copy,
  };
}

/** @param {{id: string}} props */
export function RunPage({ id }) {
  const model = useMemo(() => new RunModel(id), [id]);
  const controls = useMemo(controlsOf, [id]);
  /** @type {import("../core/html.js").Ref<HTMLInputElement>} */
  const filterField = useRef(null);
  const wanted = useRef(addressIn(place.value.query));

  // Before the first paint: what it asks for is on its way.
  useLayoutEffect(() => {
    model.open();
    return () => model.close();
  }, [model]);
  useEffect(() => {
    const narrow = matchMedia(NARROW);
    const change = () => { controls.hasTime.value = !narrow.matches; };
    narrow.addEventListener("change", change);
    return () => narrow.removeEventListener("change", change);
  }, [controls]);

  const [isLate, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), LATE_MS);
    return () => clearTimeout(timer);
  }, [model]);

  const run = model.run.value;
  useEffect(() => { document.title = run ? `${SAID[run.status]}: ${flowOf(run)} – Runglass` : "Runglass"; }, [run]);
  useAddress(model, controls, wanted);
  useEffect(() => {
    if (controls.follows.value) followNewest(model, controls);
    else model.followed.row = -1;
  }, [model.changes.value, controls.follows.value]);

  useEffect(() => {
    finder.value = (text) => stepsNamed(model, controls, text);
    return () => { finder.value = () => []; };
  }, [model]);
  const isRecorded = Boolean(run?.recording);
  useEffect(() => bind(keysOf(model, controls, filterField, isRecorded)), [model, isRecorded]);

  const problem = model.problem.value;
  if (problem && !run) return html`<${Top} back /><${Problem} problem=${problem} id=${id} />`;
  // What is around the rows is painted with them where they come at once, and need not be worked out twice.
  if (model.changes.value === 0 && !problem && !isLate) return null;
  const { have, of, isPartial } = model.loaded.value;
  return html`
    <${Header} model=${model} controls=${controls} />
    <main class=${`run${controls.panel.value && model.selected.value >= 0 ? " with-panel" : ""}`}>
      ${run && html`<${Facts} run=${run} />`}
      ${run && html`<${Boxes} model=${model} controls=${controls} onGo=${(/** @type {number} */ row) => { reveal(model, row); controls.panel.value = true; }} />`}
      <${Toolbar} model=${model} controls=${controls} fieldRef=${filterField} />
      <${Minimap} model=${model} controls=${controls} />
      ${isPartial && html`<p class="progress muted" role="status">The beginning and end of the run: counts and sums cover these rows until all are loaded</p>`}
      ${have < of && html`<p class="progress muted" role="status">${exact(have)} of ${exact(of)} rows loaded</p>`}
      ${problem && html`<p class="progress problem" role="alert">${problem.message}</p>`}
      <div class="run-body">
        <${Grid} model=${model} controls=${controls} />
        ${model.changes.value === 0 && !problem && html`<p class="tree-loading late muted" role="status">Loading the run …</p>`}
        ${model.changes.value > 0 && model.view.count === 0 && html`<${NoRows} model=${model} />`}
        ${controls.panel.value && html`<${Panel} model=${model} controls=${controls} />`}
      </div>
    </main>`;
}

/** Keeps the address and the selection the same: what is selected is in the address, and Back selects.
 * @param {RunModel} model @param {Controls} controls @param {import("../core/html.js").Ref<Address>} wanted */
function useAddress(model, controls, wanted) {
  const address = addressIn(place.value.query);
  const asked = JSON.stringify(address);
  const written = useRef("");
  useEffect(() => {
    if (!wanted.current || model.rows.rootFirst === NONE) return;
    const row = rowAt(model.rows, wanted.current);
    if (row !== NONE) reveal(model, row);
    if (row !== NONE) controls.panel.value = true;
    // What is not there yet may come with a further page.
    const isExact = row !== NONE && JSON.stringify(addressOf(model.rows, row)) === JSON.stringify(wanted.current);
    if (isExact || isWhole(model)) wanted.current = null;
  }, [model.loaded.value]);
  useEffect(() => {
    // What was written here is not gone to: by now a further key may have selected something else.
    if (wanted.current || asked === written.current || address === null) return;
    const row = rowAt(model.rows, address);
    if (row !== NONE) reveal(model, row);
  }, [asked]);
  // Before anything is painted: by the next address that somebody goes to, this one has been written.
  useLayoutEffect(() => {
    if (wanted.current || model.selected.value < 0) return;
    const selected = addressOf(model.rows, model.selected.value);
    written.current = JSON.stringify(selected);
    setQuery(queryOf(selected));
  }, [model.selected.value]);
}

/** Whether all rows have come. @param {RunModel} model */
function isWhole(model) {
  const { have, of, isPartial } = model.loaded.peek();
  return model.changes.peek() > 0 && !isPartial && have >= of;
}

/** Selects what has begun last, and folds again what it opened for the one before. Who moves away is left alone.
 * @param {RunModel} model @param {Controls} controls */
function followNewest(model, controls) {
  const { followed, view } = model;
  if (followed.row >= 0 && model.selected.peek() !== followed.row) {
    controls.follows.value = false;
    followed.row = -1;
    say("No longer following");
    return;
  }
  let newest = NONE;
  for (let row = 0; row < model.rows.count; row += 1) {
    if (STATUSES[model.rows.status[row]] === "running" && isLeaf(model.rows, row)
      && (newest === NONE || model.rows.start[row] >= model.rows.start[newest])) newest = row;
  }
  if (newest === NONE || newest === followed.row) return;
  if (followed.row < 0) Object.assign(followed, { chosen: new Map(view.chosen), shown: new Set(view.shown) });
  view.chosen = new Map(followed.chosen);
  view.shown = new Set(followed.shown);
  followed.row = newest;
  reveal(model, newest);
}

/** @param {RunModel} model @param {Controls} controls @param {import("../core/html.js").Ref<HTMLInputElement>} filterField
 * @param {boolean} isRecorded */
function keysOf(model, controls, filterField, isRecorded) {
  const open = () => { controls.panel.value = true; };
  const lead = (/** @type {boolean} */ found, /** @type {string} */ otherwise) => {
    if (found) open();
    else say(isWhole(model) ? otherwise : "None in the rows loaded so far");
  };
  return [
    { key: "j", isMotion: true, what: "down", run: () => move(model, 1) },
    { key: "k", isMotion: true, what: "up", run: () => move(model, -1) },
    { key: "ArrowDown", what: "", run: () => move(model, 1) },
    { key: "ArrowUp", what: "", run: () => move(model, -1) },
    { key: "PageDown", what: "", run: () => move(model, 20) },
    { key: "PageUp", what: "", run: () => move(model, -20) },
    { key: "Home", what: "", run: () => move(model, -1e9) },
    { key: "End", what: "", run: () => move(model, 1e9) },
    { key: "ArrowRight", isMotion: true, shown: "→", what: "expand", run: () => unfold(model) },
    { key: "ArrowLeft", isMotion: true, shown: "←", what: "collapse", run: () => fold(model) },
    { key: "Enter", what: "show details", run: open },
    { key: "Escape", what: "close the panel", run: () => { controls.panel.value = false; } },
    { key: "e", what: "next error", run: () => lead(nextError(model), "No errors in this run") },
    { key: "s", what: "slowest step; again: the next slowest", run: () => lead(most(model, "time"), "No further step") },
    { key: "$", what: "most expensive step; again: the next", run: () => lead(most(model, "cost"), "No further step has a cost") },
    { key: "/", what: "filter steps", run: () => { filterField.current?.focus(); filterField.current?.select(); } },
    { key: "g", what: "go to step", run: () => { paletteIsOpen.value = true; } },
    { key: ".", what: "follow active steps", run: () => {
      controls.follows.value = !controls.follows.value;
      say(controls.follows.value ? "Following active steps" : "No longer following");
    } },
    { key: "+", isMotion: true, what: "zoom in", run: () => controls.grid.peek()?.zoom(0.5) },
    { key: "-", isMotion: true, what: "zoom out", run: () => controls.grid.peek()?.zoom(2) },
    { key: "0", what: "show the whole run", run: () => { controls.window.value = null; } },
    { key: "h", isMotion: true, what: "earlier", run: () => controls.grid.peek()?.pan(-0.25) },
    { key: "l", isMotion: true, what: "later", run: () => controls.grid.peek()?.pan(0.25) },
    ...TABS.map((tab, at) => ({
      key: String(at + 1), what: tab === "compare" ? "compare the selection with another attempt" : `${tab} of the selection`, run: () => { setQuery({ tab: tab === "overview" ? null : tab }); open(); },
    })),
    { key: "c", what: "compare with the last completed run", run: () => {
      const run = model.run.peek();
      if (run) compareWithGood(run).catch((error) => say(error.message));
    } },
    ...(isRecorded || me.peek()?.role === "read" ? [] : [{ key: "r", what: "run again", run: () => { controls.again.value = true; } }]),
    { key: "u", what: "back to the runs", run: () => go("/") },
  ];
}

/** @param {RunModel} model @param {Controls} controls @param {string} text */
function stepsNamed(model, controls, text) {
  if (!text) return [];
  const [, name, index] = /^(.*?)\s*(?:\[?(\d[\d, ]*)\]?)?$/.exec(text) ?? [];
  const found = [];
  for (let row = 0; row < model.rows.count && found.length < 8; row += 1) {
    if (!isLeaf(model.rows, row) || !model.rows.nameOf(row).toLowerCase().includes(name.toLowerCase())) continue;
    if (index !== undefined && addressOf(model.rows, row).iteration.join(",") !== index.replaceAll(" ", "")) continue;
    found.push({ what: titleOf(model.rows, row), run: () => { reveal(model, row); controls.panel.value = true; } });
  }
  return found;
}

/** @param {{model: RunModel}} props */
function NoRows({ model }) {
  const isFiltered = model.view.kept !== null;
  const waits = !isFiltered && model.run.value?.status === "pending";
  return html`<div class="empty over-grid">
    <h2>${isFiltered ? "Nothing matches the filter" : "No steps yet"}</h2>
    ${waits && html`<p>Waiting for a process with a free slot.</p>`}
    ${isFiltered && html`<button onClick=${() => model.setFilter({ text: "", onlyFailed: false, leastMs: 0 })}>Show all</button>`}</div>`;
}

/** @param {{problem: Error, id: string}} props */
function Problem({ problem, id }) {
  const isMissing = problem instanceof ApiError && problem.status === 404;
  return html`<main class="empty"><div role="alert">
    <h1>${isMissing ? "Run not found" : "The run cannot be shown"}</h1>
    <p>${isMissing ? html`<code>${id}</code> is not in this project, or was deleted.` : problem.message}</p></div>
    ${!isMissing && html`<p><button onClick=${() => location.reload()}>Try again</button></p>`}
    <p><a href="/">All runs</a></p></main>`;
}
