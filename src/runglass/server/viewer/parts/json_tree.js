// A JSON value as a tree that is opened step by step: what is closed costs nothing, whatever its size and depth.
import { html, useState } from "../core/html.js";
import { count, exact } from "../data/format.js";
import { LargeNumber } from "../data/json.js";

const FIRST = 100;
/** Members that are shown at once; more are asked for. */
const LONG_TEXT = 2000;
const OPEN_MEMBERS = 30;

/** @param {{value: Json, name?: string|number, open?: boolean, level?: number}} props */
export function JsonTree({ value, name, open, level = 0 }) {
  if (value === null || typeof value !== "object" || value instanceof LargeNumber) {
    return html`<div class="json-line"><${Name} name=${name} /><${Scalar} value=${value} /></div>`;
  }
  return html`<${Members} value=${value} name=${name} level=${level}
    isOpenAtFirst=${open ?? (level < 2 && sizeOf(value) <= OPEN_MEMBERS)} />`;
}

/** @param {{value: Json, name?: string|number, level: number, isOpenAtFirst: boolean}} props */
function Members({ value, name, level, isOpenAtFirst }) {
  const [isOpen, setOpen] = useState(isOpenAtFirst);
  const [most, setMost] = useState(FIRST);
  const isList = Array.isArray(value);
  const size = sizeOf(value);
  const about = isList ? `[ ${count(size, "item")} ]` : `{ ${count(size, "field")} }`;
  if (!size) return html`<div class="json-line"><${Name} name=${name} /><span class="json-mark">${isList ? "[ ]" : "{ }"}</span></div>`;
  const names = !isOpen ? [] : isList ? [...value.slice(0, most).keys()] : Object.keys(value).slice(0, most);
  return html`
    <div class="json-node">
      <button class="json-line plain" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
        <span class="twisty">${isOpen ? "▾" : "▸"}</span><${Name} name=${name} />
        <span class="json-mark">${isOpen ? (isList ? "[" : "{") : about}</span>
      </button>
      ${isOpen && html`
        <div class="json-inner">
          ${names.map((each) => html`<${JsonTree} key=${each} value=${value[each]} name=${each} level=${level + 1} />`)}
          ${size > most && html`<button class="plain more-members" onClick=${() => setMost(most * 10)}>
            ${exact(size - most)} more</button>`}
        </div>
        <div class="json-line json-mark">${isList ? "]" : "}"}</div>`}
    </div>`;
}

/** @param {{name?: string|number}} props */
function Name({ name }) {
  if (name === undefined) return null;
  return html`<span class="json-name">${typeof name === "number" ? name : html`<bdi>${name}</bdi>`}</span><span class="json-mark">: </span>`;
}

/** @param {{value: Json}} props no list, and no object but a LargeNumber */
function Scalar({ value }) {
  const [isWhole, setWhole] = useState(false);
  if (typeof value !== "string") return html`<span class="json-literal">${String(value)}</span>`;
  const isCut = value.length > LONG_TEXT && !isWhole;
  return html`<span class="json-text"><bdi>"${isCut ? value.slice(0, LONG_TEXT) : value}${isCut ? "" : "\""}</bdi></span>
    ${isCut && html`<button class="plain" onClick=${() => setWhole(true)}>… all ${exact(value.length)} characters</button>`}`;
}

/** @param {object} value */
function sizeOf(value) {
  return Array.isArray(value) ? value.length : Object.keys(value).length;
}
