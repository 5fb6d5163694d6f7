// What of the run is shown, and how: filter, folding, the axis.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../core/html.js";
import { exact } from "../data/format.js";
import { isEmpty } from "../data/filter.js";

const MANY_ROWS = 50_000;
const PAUSE_MS = 120;
/** Among so many rows it is looked for once nobody types any more. */

/** @type {[string, number][]} */
const LEVELS = [["1", 1], ["2", 2], ["3", 3], ["all", Infinity]];
const LEAST = [[0, "any length"], [5, "≥ 5 ms"], [100, "≥ 100 ms"], [1000, "≥ 1 s"], [10_000, "≥ 10 s"]];

/** @param {{model: import("./model.js").RunModel, controls: import("./page.js").Controls, fieldRef: import("../core/html.js").Ref<HTMLInputElement>}} props */
export function Toolbar({ model, controls, fieldRef }) {
  const filter = model.filter.value;
  const [text, setText] = useState(filter.text);
  const waiting = useRef(/** @type {ReturnType<typeof setTimeout>|undefined} */ (undefined));
  useEffect(() => () => clearTimeout(waiting.current), []);
  // Before the next key comes, whose letter would be taken back.
  useLayoutEffect(() => setText(filter.text), [filter]);
  const { view } = model;
  const { changes } = model;
  const level = changes.value >= 0 ? view.level : null;

  /** @param {string} typed */
  function filterBy(typed) {
    setText(typed);
    clearTimeout(waiting.current);
    // Found at once, so that the frame that shows the letter shows what it finds.
    if (model.rows.count <= MANY_ROWS) model.setFilter({ text: typed });
    else waiting.current = setTimeout(() => model.setFilter({ text: typed }), PAUSE_MS);
  }

  /** @param {import("../core/html.js").EventOf<HTMLInputElement, KeyboardEvent>} event */
  function key(event) {
    if (event.key !== "Escape" && event.key !== "Enter") return;
    if (event.key === "Escape") filterBy("");
    event.currentTarget.blur();
  }

  return html`
    <div class="toolbar" role="toolbar" aria-label="Display">
      <input ref=${fieldRef} type="search" aria-label="Filter steps" spellcheck=${false} autocomplete="off"
        placeholder="filter: step, [3], failed" value=${text} onInput=${(/** @type {import("../core/html.js").EventOf<HTMLInputElement>} */ event) => filterBy(event.currentTarget.value)}
        onKeyDown=${key} />
      ${!isEmpty(filter) && html`<span class="muted" role="status">${exact(model.matches.value)} found</span>`}
      <button aria-pressed=${filter.onlyFailed} onClick=${() => model.setFilter({ onlyFailed: !filter.onlyFailed })}>only failed</button>
      <select aria-label="Minimum duration" value=${String(filter.leastMs)}
        onChange=${(/** @type {import("../core/html.js").EventOf<HTMLSelectElement>} */ event) => model.setFilter({ leastMs: Number(event.currentTarget.value) })}>
        ${LEAST.map(([ms, said]) => html`<option key=${ms} value=${String(ms)}>${said}</option>`)}
      </select>
      <span class="group-of-buttons" role="group" aria-label="Expand to level">
        <span class="muted">level</span>
        ${LEVELS.map(([name, value]) => html`<button key=${name} aria-pressed=${level === value}
          onClick=${() => { view.setLevel(level === value ? null : value); model.reshow(); }}>${name}</button>`)}
      </span>
      <span class="group-of-buttons" role="group" aria-label="Bars show">
        <span class="muted">by</span>
        ${["time", "cost", "tokens"].map((by) => html`<button key=${by} aria-pressed=${controls.by.value === by}
          onClick=${() => { controls.by.value = by; }}>${by}</button>`)}
      </span>
      <button class="wide" aria-pressed=${controls.foldIdle.value} title="Hide times without activity"
        onClick=${() => { controls.foldIdle.value = !controls.foldIdle.value; }}>hide idle time</button>
      ${controls.window.value && html`<button onClick=${() => { controls.window.value = null; }}>whole run <kbd>0</kbd></button>`}
    </div>`;
}
