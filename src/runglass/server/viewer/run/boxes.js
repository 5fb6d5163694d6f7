// A run opens with its answer: what it was given, what came of it, and what of it is not as the flow says.
import { currentOf, html, useLayoutEffect, useRef, useState } from "../core/html.js";
import { CUT } from "../data/filter.js";
import { oneLine } from "../data/format.js";
import { overridesOf, spoken } from "../data/overrides.js";
import { hasEnded, modelsOf, remarksOf } from "../data/run.js";
import { JsonTree } from "../parts/json_tree.js";
import { Why } from "./why.js";

/** @typedef {import("./told.js").Content} Content */
/** @typedef {import("./page.js").Controls} Controls */

/** @param {{model: import("./model.js").RunModel, controls: Controls, onGo: (row: number) => void}} props */
export function Boxes({ model, controls, onGo }) {
  const run = model.run.value;
  const content = model.told.content.value;
  // Decided once for who follows a run: what comes at its end must not move what is being read.
  const [wasGoing] = useState(run !== null && !hasEnded(run));
  if (!run) return null;
  const input = content.input && given(content.input.value);
  const isTall = wasGoing || (input ? !isNone(input) : run.inputPreview) || content.result || run.resultPreview;
  const isGood = run.status === "completed";
  const missing = !run.recording ? "" : hasEnded(run) ? "Not sent, or not kept." : "Available when the run ends.";
  return html`
    <section class=${`boxes${isTall ? " tall" : ""}`} aria-label="Input and result">
      <${Box} name="Input" content=${content} value=${input} isCut=${content.input?.isCut}
        preview=${run.inputPreview} controls=${controls} missing=${missing} />
      ${isGood ? html`<${Box} name="Result" content=${content} value=${content.result?.value} isCut=${content.result?.isCut}
        preview=${run.resultPreview} controls=${controls} missing=${missing} />` : html`<${Why} model=${model} onGo=${onGo} />`}
    </section>
    <${Notes} model=${model} />`;
}

/** What a caller gave, without what there was none of. @param {Json} value */
function given({ inputs, messages, attachments }) {
  const parts = Object.entries({ inputs, messages, attachments }).filter(([, part]) => part && Object.keys(part).length);
  return parts.length === 1 && parts[0][0] === "inputs" ? inputs : Object.fromEntries(parts);
}

/** @param {Json} value */
function isNone(value) {
  return typeof value === "object" && value !== null && !Object.keys(value).length;
}

/** @param {{name: string, content: Content, value: Json, isCut?: boolean, preview?: string, controls: Controls, missing: string}} props */
function Box({ name, content, value, isCut, preview, controls, missing }) {
  /** @type {import("../core/html.js").Ref<HTMLElement>} */
  const inside = useRef(null);
  const [isOpen, setOpen] = useState(false);
  const [isLong, setLong] = useState(false);
  const isKept = (value ?? null) !== null;
  useLayoutEffect(() => {
    const { scrollHeight, clientHeight } = currentOf(inside);
    setLong(scrollHeight > clientHeight + 2);
  }, [isKept]);
  return html`
    <div class=${`box${isOpen ? " open" : ""}`}>
      <h2>${name}
        ${isCut && html`<span class="muted">truncated to the snapshot limit</span>`}
        <span class="grow"></span>
        ${(isLong || isOpen) && html`<button class="plain" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>${isOpen ? "less" : "more"}</button>`}
        ${isKept && !isNone(value) && html`<button class="plain" aria-label=${`Copy the ${name.toLowerCase()}`}
          onClick=${() => controls.copy(JSON.stringify(value, null, 2), `${name} copied`)}>Copy</button>`}
      </h2>
      <div class="box-inside" ref=${inside} tabindex="0" role="group" aria-label=${name}>
        ${isNone(value) ? html`<p class="muted">None.</p>` : isKept ? html`<div class="json mono"><${JsonTree} value=${value} open=${true} /></div>`
          : preview ? html`<p class="mono"><bdi>${oneLine(preview)}</bdi></p>` : null}
        ${!isKept && html`<${NotThere} name=${name} content=${content} isPart=${Boolean(preview)} missing=${missing} />`}
      </div>
    </div>`;
}

/** Why a value is not there as a whole. @param {{name: string, content: Content, isPart: boolean, missing: string}} props */
function NotThere({ name, content, isPart, missing }) {
  if (content.problem) return html`<p class="problem" role="alert">${content.problem}</p>`;
  if (!content.isRead) return isPart ? null : html`<p class="late muted">Loading …</p>`;
  if (content.tooLarge.includes(name)) return html`<p class="muted">Too large to show here: the steps have it in parts.</p>`;
  if (isPart) return null;
  if (missing) return html`<p class="muted">${missing}</p>`;
  return html`<p class="muted">Not kept. Set <code>capture: full</code> on the flow or project, or run it once
    with${" "}<code class="option">--trace</code>, unless the mode is <code>off</code>.</p>`;
}

/** What was set anew, what each model cost, and what to beware of. @param {{model: import("./model.js").RunModel}} props */
function Notes({ model }) {
  const run = model.run.value;
  const isKnown = model.changes.value > 0;
  if (!run) return null;
  const overrides = overridesOf(run.overridden ?? [], model.told.content.value.overrides, model.told.steps);
  const [models, remarks] = [modelsOf(run), remarksOf(run)];
  const isOnlyCut = model.filter.value.text === CUT;
  if (!overrides.length && !models.length && !remarks) return null;
  return html`
    <div class="notes" tabindex="0" role="group" aria-label="Notes"><dl>
      ${models.length > 0 && html`<div><dt>Models</dt><dd>${models.map(([name, said]) => html`
        <span class="note-part" key=${name}><code><bdi>${oneLine(name, 100)}</bdi></code> ${said}</span>`)}</dd></div>`}
      ${overrides.length > 0 && html`<div class="overrides"><dt>Overrides</dt><dd>${overrides.map(({ name, was, value }) => html`
        <span class="note-part" key=${name} title=${value === undefined ? "value not kept" : [was, value].filter(Boolean).join(" → ")}>
          <code><bdi>${oneLine(spoken(name), 200)}</bdi></code>
          ${value !== undefined && html` <bdi>${was === undefined ? "" : oneLine(was, 40)} → ${oneLine(value, 60)}</bdi>`}</span>`)}</dd></div>`}
      ${remarks && html`<div class="beware"><dt>Warnings</dt><dd>${remarks}
        ${isKnown && model.rows.cut.size > 0 && html` <button aria-pressed=${isOnlyCut}
          onClick=${() => model.setFilter({ text: isOnlyCut ? "" : CUT })}>Show only truncated</button>`}</dd></div>`}
    </dl></div>`;
}
