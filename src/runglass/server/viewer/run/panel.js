// All that is kept of what is selected.
import { html, useEffect, useMemo, useState } from "../core/html.js";
import { errorOf } from "../core/api.js";
import { place, setQuery } from "../core/router.js";
import { SKIPPED, STATUSES, STEP } from "../data/columns.js";
import { isLeaf, labelOf, TABS, titleOf } from "../data/address.js";
import { exact, size } from "../data/format.js";
import { Download } from "../parts/download.js";
import { Mark } from "../parts/status.js";
import { JsonTree } from "../parts/json_tree.js";
import { beside, siblingsOf } from "../data/siblings.js";
import { AttemptReader, pathOf } from "./attempt.js";
import { Chat } from "./chat.js";
import { CompareWith } from "./compare_with.js";
import { LargeContent } from "./large_content.js";
import { ContainerFacts, Overview } from "./overview.js";
import { reveal } from "./moves.js";

const RAW_CHARACTERS = 50_000;

/** @param {{model: import("./model.js").RunModel, controls: import("./page.js").Controls}} props */
export function Panel({ model, controls }) {
  const reader = useMemo(() => new AttemptReader(model), [model]);
  const { rows } = model;
  const selected = model.selected.value;
  const isThere = model.changes.value >= 0 && selected >= 0 && selected < rows.count;
  // A step is shown as its last attempt.
  const row = isThere && rows.kind[selected] === STEP && rows.children[selected] ? rows.last[selected] : selected;
  const leaf = isThere && isLeaf(rows, row);
  const isSkipped = isThere && rows.status[row] === SKIPPED;
  const state = isThere && model.run.value ? model.stateOf(row) : "";
  useEffect(() => {
    if (leaf && !isSkipped) reader.read(row);
    return () => reader.stop();
  }, [row, state, leaf]);
  if (!isThere) return null;

  const found = reader.now.value;
  const value = leaf && !isSkipped ? found.value : null;
  const tabs = leaf ? tabsOf(value, Boolean(model.saidIn(row)?.text)).filter((each) => each !== "compare" || siblingsOf(rows, row).length) : ["overview"];
  const wanted = place.value.query.get("tab") ?? "overview";
  const tab = tabs.includes(wanted) ? wanted : "overview";

  /** @param {KeyboardEvent} event */
  function key(event) {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!by) return;
    event.preventDefault();
    const next = tabs[(tabs.indexOf(tab) + by + tabs.length) % tabs.length];
    setQuery({ tab: next });
    requestAnimationFrame(() => document.getElementById(`tab-${next}`)?.focus());
  }

  return html`
    <aside class="panel" aria-label="Selection">
      <header>
        <${Mark} status=${STATUSES[rows.status[row]]} />
        <h2 class="cut" title=${leaf ? titleOf(rows, row) : labelOf(rows, row)}><bdi>${leaf ? titleOf(rows, row) : labelOf(rows, row)}</bdi></h2>
        <${Siblings} model=${model} row=${selected} />
        <button class="plain" aria-label="Close the panel" title="Close (Esc)" onClick=${() => { controls.panel.value = false; }}>✕</button>
      </header>
      ${leaf && html`
        <div class="tabs" role="tablist" aria-label="Parts" onKeyDown=${key}>
          ${tabs.map((each) => html`<button key=${each} id=${`tab-${each}`} role="tab" aria-selected=${each === tab}
            aria-controls="tab-content" tabindex=${each === tab ? 0 : -1}
            onClick=${() => setQuery({ tab: each === "overview" ? null : each })}>${each}</button>`)}
        </div>`}
      <div class="panel-content" id="tab-content" role=${leaf ? "tabpanel" : null} aria-labelledby=${leaf ? `tab-${tab}` : null} tabindex="0">
        ${!leaf && html`<${ContainerFacts} model=${model} row=${row} />`}
        ${leaf && found.problem && html`<p class="problem" role="alert">${found.problem.message}</p>`}
        ${leaf && tab === "overview" && html`<${Overview} model=${model} row=${row} value=${value} controls=${controls} />`}
        ${leaf && tab === "compare" && html`<${CompareWith} model=${model} row=${row} />`}
        ${leaf && found.loading && !value && tab !== "overview" && tab !== "compare" && html`<p class="muted">Loading …</p>`}
        ${value && html`<${Content} model=${model} row=${row} tab=${tab} value=${value} controls=${controls} onWhole=${() => reader.read(row, { whole: true })} />`}
      </div>
    </aside>`;
}

/** @param {{model: import("./model.js").RunModel, row: number, tab: string, value: Json, controls: import("./page.js").Controls, onWhole: () => void}} props */
function Content({ model, row, tab, value, controls, onWhole }) {
  if (tab === "chat" && value.leftOut?.modelCalls) {
    return html`<p class="notice">The conversation takes ${size(value.leftOut.modelCalls)}. <button onClick=${onWhole}>Load all</button></p>`;
  }
  if (value.leftOut?.[tab]) return html`<${LargeContent} path=${pathOf(model, row, "payload", { part: tab })} name=${`${value.stepId}-${tab}.json`} />`;
  if (tab === "chat") return html`<${Chat} model=${model} row=${row} value=${value} />`;
  if (tab === "raw") return html`<${Raw} value=${value} path=${pathOf(model, row, "trace")} controls=${controls} />`;
  if (tab === "error") return html`<${ErrorContent} value=${value.errorContext} />`;
  if (tab === "input" || tab === "output") return html`<${Snapshot} value=${value} part=${tab} controls=${controls} />`;
  return null;
}

/** @param {{value: Json, part: "input"|"output", controls: import("./page.js").Controls}} props */
function Snapshot({ value, part, controls }) {
  const content = value[`${part}Context`];
  if (content === undefined) {
    return html`<${NotKept} value=${value} part=${part} />`;
  }
  return html`
    <div class="content-bar">
      ${value.truncated && html`<span class="muted">truncated to the snapshot limit</span>`}
      <button class="plain" onClick=${() => controls.copy(JSON.stringify(content, null, 2), `${part === "input" ? "Input" : "Output"} copied`)}>Copy</button>
    </div>
    <div class="json mono"><${JsonTree} key=${part} value=${content} open=${true} /></div>`;
}

/** Why there is no content. @param {{value: Json, part: "input"|"output"}} props */
function NotKept({ value, part }) {
  const bytes = value[`${part}SizeBytes`];
  const isLost = part === "output" && value.status === "failed";
  // Capture mode off alone records no size.
  const why = value.status === "running" ? "The step is still running."
    : isLost ? "The attempt failed before it had one."
      : value.spanId ? "Not sent, or not kept."
      : value.inputSizeBytes === undefined ? html`The run used <code>capture: off</code>, which keeps no content and no sizes.`
        : html`${size(bytes)}, not kept by the run's capture mode, or expired. Set <code>capture: full</code> on the flow
          or project, or run it once with <code class="option">--trace</code>.`;
  return html`<div class="empty"><h2>${isLost ? "No output" : `The ${part} was not kept`}</h2><p>${why}</p></div>`;
}

/** @param {{value: Json}} props the error as the API gives it */
function ErrorContent({ value }) {
  if (!value || typeof value !== "object") return html`<div class="json mono"><${JsonTree} value=${value} /></div>`;
  const { code, message, traceback, ...others } = value;
  return html`
    ${code && html`<p class="problem mono">${String(code)}</p>`}
    ${message && html`<p class="error-message"><bdi>${String(message)}</bdi></p>`}
    ${traceback && html`<pre class="traceback">${String(traceback)}</pre>`}
    ${Object.keys(others).length > 0 && html`<div class="json mono"><${JsonTree} value=${others} open=${true} /></div>`}`;
}

/** @param {Json} value @param {boolean} isSaid whether text comes in still */
function tabsOf(value, isSaid) {
  /** @type {Record<string, boolean>} */
  const has = { error: Boolean(value?.errorContext !== undefined || value?.leftOut?.error), chat: Boolean(value?.modelCalls?.length) || isSaid };
  return TABS.filter((tab) => has[tab] ?? true);
}

/** The ways to the attempts before and after, or the same step in other iterations.
 * @param {{model: import("./model.js").RunModel, row: number}} props */
function Siblings({ model, row }) {
  const [before, after] = [beside(model.rows, row, "prev"), beside(model.rows, row, "next")];
  if (before < 0 && after < 0) return null;
  const go = (/** @type {number} */ to) => () => reveal(model, to);
  return html`<span class="siblings">
    <button class="plain" disabled=${before < 0} aria-label="Previous" title="Previous" onClick=${go(before)}>‹</button>
    <button class="plain" disabled=${after < 0} aria-label="Next" title="Next" onClick=${go(after)}>›</button>
  </span>`;
}

/** The attempt as the API gives it. @param {{value: Json, path: string, controls: import("./page.js").Controls}} props `path`: where the API has all of it */
function Raw({ value, path, controls }) {
  const [most, setMost] = useState(RAW_CHARACTERS);
  const text = useMemo(() => written(value), [value]);
  return html`
    <div class="content-bar">
      ${value.leftOut && html`<span class="muted">without ${Object.entries(value.leftOut).map(([part, bytes]) => `${part} (${size(Number(bytes))})`).join(", ")}</span>`}
      <${Download} path=${path} name=${`${value.stepId}.json`} />
      <button class="plain" onClick=${() => controls.copy(text, "JSON copied")}>Copy</button>
    </div>
    <pre class="raw">${text.slice(0, most)}</pre>
    ${text.length > most && html`<button onClick=${() => setMost(most * 10)}>${exact(text.length - most)} more characters</button>`}`;
}

/** @param {Json} value */
function written(value) {
  try {
    return JSON.stringify(value, null, 2);
  } catch (error) {
    // The browser gives up on what is nested thousands of levels deep.
    return `This value cannot be written as text: ${errorOf(error).message}. Its tree can be opened level by level.`;
  }
}
