// The lines of the tree: a pool of elements that are filled anew as the page is scrolled, however many rows there are.
import { ATTEMPT, BRANCH, ITERATION, KINDS, STATUSES, STEP } from "../data/columns.js";
import { labelOf } from "../data/address.js";
import { count, duration, exact, oneLine, short, shortModel, shortMoney, soFar } from "../data/format.js";
import { lengthOf } from "../data/filter.js";
import { modelOf } from "../data/overrides.js";
import { saidOf } from "../parts/status.js";
import { toggle } from "./moves.js";

export const ROW_PX = 24;
const INDENT_PX = 14;
const MOST_INDENT = 14;
const LEAVES = new Set(["llm", "code", "wait", "passthrough"]);
const SVG = "http://www.w3.org/2000/svg";

/** A line, and what it has in it; `shown` tells whether it is filled already.
 * @typedef {{element: HTMLElement, twisty: HTMLElement, mark: SVGElement, use: SVGElement, glyph: SVGElement, kind: SVGElement,
 *   label: HTMLElement, bar: HTMLElement, note: HTMLElement, value: HTMLElement, shown: string}} Line */

export class TreeRows {
  /** @param {HTMLElement} host */
  constructor(host) {
    this.host = host;
    /** @type {Line[]} */
    this.pool = [];
  }

  /** Shows the entries from `top` pixels on, in so many pixels.
   * @param {import("./model.js").RunModel} model @param {number} top @param {number} height @param {string} by */
  paint(model, top, height, by) {
    const { view } = model;
    const first = Math.floor(top / ROW_PX);
    const needed = Math.min(view.count - first, Math.ceil(height / ROW_PX) + 1);
    while (this.pool.length < needed) this.pool.push(this.lineElement());
    const selected = model.selected.peek();
    this.pool.forEach((line, at) => {
      const isUsed = at < needed;
      line.element.hidden = !isUsed;
      if (!isUsed) return;
      line.element.style.transform = `translateY(${(first + at) * ROW_PX - top}px)`;
      this.fill(line, model, first + at, selected, by);
    });
  }

  /** @returns {Line} */
  lineElement() {
    const element = document.createElement("div");
    element.className = "line";
    element.setAttribute("role", "treeitem");
    const [twisty, label, bar, note, value] = ["twisty", "label", "bar", "note", "value"].map((name) => {
      const span = document.createElement("span");
      span.className = name;
      return span;
    });
    const [mark, glyph] = ["mark", "glyph"].map((name) => {
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", "0 0 14 14");
      svg.setAttribute("aria-hidden", "true");
      svg.setAttribute("class", name);
      svg.append(document.createElementNS(SVG, "use"));
      return svg;
    });
    const [use, kind] = [mark, glyph].map((svg) => /** @type {SVGElement} */ (svg.firstChild));
    bar.append(document.createElement("span"));
    element.append(twisty, mark, glyph, label, bar, note, value);
    this.host.append(element);
    return { element, twisty, mark, use, glyph, kind, label, bar, note, value, shown: "" };
  }

  /** @param {Line} line @param {import("./model.js").RunModel} model @param {number} at @param {number} selected @param {string} by */
  fill(line, model, at, selected, by) {
    const { rows, view } = model;
    const entry = view.entries[at];
    const group = view.groupOf(entry);
    const row = view.rowOf(entry);
    const isOpen = !group && view.isOpen(entry);
    const status = STATUSES[rows.status[row]];
    const isSelected = row === selected || (group !== undefined && selected >= 0 && view.isIn(group, selected));
    const text = group ? `[${rows.index[group.first]}] … [${rows.index[group.last]}]` : labelOf(rows, row);
    const far = group ? undefined : model.loops.of(rows, row);
    const kind = group ? "" : kindOf(model, row);
    const asked = kind === "llm" || rows.isRecorded ? modelIn(model, row) : "";
    const note = group ? count(group.count, "iteration") : [noteOf(rows, row, far), asked && (rows.isRecorded ? asked : shortModel(asked)), ...spanNotes(rows, row)].filter(Boolean).join(" · ");
    const value = group ? "" : valueOf(model, row, by);
    // Most lines are the same as in the frame before.
    const shown = `${entry} ${at} ${isOpen} ${status} ${isSelected} ${text} ${kind} ${note} ${value}`;
    if (line.shown === shown) return;
    line.shown = shown;
    const { element } = line;
    element.id = `line-${at}`;
    element.dataset.at = String(at);
    element.className = `line ${status}${isSelected ? " selected" : ""}${group ? " group" : ""}${isAside(rows, row) ? " aside" : ""}`;
    element.style.paddingLeft = `${8 + Math.min(rows.depth[row], MOST_INDENT) * INDENT_PX}px`;
    element.setAttribute("aria-level", String(rows.depth[row] + 1));
    element.setAttribute("aria-selected", String(isSelected));
    element.setAttribute("aria-posinset", String(at + 1));
    element.setAttribute("aria-setsize", String(view.count));
    const hasInner = group !== undefined || rows.children[row] > 0;
    if (hasInner) element.setAttribute("aria-expanded", String(isOpen));
    else element.removeAttribute("aria-expanded");
    // What is seen comes first, word by word, so that the line can be called by it.
    const seen = [oneLine(text, 200), note, value].filter(Boolean).join(" ");
    element.setAttribute("aria-label", `${seen}, ${kind && rows.kind[row] === STEP ? `${kind} step` : KINDS[rows.kind[row]]}, ${saidOf(status, rows.kind[row] === ATTEMPT || rows.isRecorded)}`);
    line.twisty.textContent = hasInner ? (isOpen ? "▾" : "▸") : "";
    line.mark.setAttribute("class", `mark ${status}`);
    line.use.setAttribute("href", `#mark-${status}`);
    line.glyph.setAttribute("class", `glyph ${kind || "none"}`);
    line.kind.setAttribute("href", kind ? `#kind-${kind}` : "");
    line.label.textContent = `${oneLine(text, 200)} `;
    line.label.title = oneLine(text);
    line.bar.hidden = far === undefined || !rows.isGoing(row);
    if (far) /** @type {HTMLElement} */ (line.bar.firstChild).style.width = `${Math.min(100, (100 * far.begun) / Math.max(1, far.total))}%`;
    line.note.textContent = `${oneLine(note, 200)} `;
    line.note.title = asked;
    line.value.textContent = value;
  }
}

/** What a step or container is, as far as the flow or its tokens tell; empty for parts of these.
 * @param {import("./model.js").RunModel} model @param {number} row */
function kindOf({ rows, told }, row) {
  const kind = rows.kind[row];
  if (kind === ITERATION || kind === BRANCH || kind === ATTEMPT) return "";
  if (kind !== STEP) return KINDS[kind];
  const { type } = told.steps.get(rows.nameOf(row)) ?? {};
  return LEAVES.has(type) ? type : rows.tokens[row] > 0 ? "llm" : "";
}

/** @param {import("./model.js").RunModel} model @param {number} row */
function modelIn({ rows, told, run }, row) {
  if (rows.isRecorded) return rows.models[rows.name[row]] ?? "";
  const summary = run.peek();
  return summary ? modelOf(rows.nameOf(row), rows.tokens[row], summary, told.content.peek().overrides, told.steps) : "";
}

/** What a span tells, or does not, of which no column has room. @param {import("../data/columns.js").Rows} rows @param {number} row */
function spanNotes(rows, row) {
  const earlier = rows.retryOf.get(row);
  const more = rows.unattributed.get(row);
  return [
    earlier !== undefined && `retry of [${rows.index[earlier]}]`,
    more && `${unattributed(more)} unattributed`,
    rows.cycles.has(row) && "cycle broken above",
    rows.noted.has(row) && "noted",
  ];
}

/** Tokens and cost that are in no sum. @param {[number, string|null]} told */
export function unattributed([tokens, cost]) {
  return [tokens > 0 && count(tokens, "token"), cost !== null && shortMoney(Number(cost))].filter(Boolean).join(", ");
}

/** Whether a row is not what the run is about. @param {import("../data/columns.js").Rows} rows @param {number} row */
function isAside(rows, row) {
  return rows.context.has(row) || KINDS[rows.kind[row]] === "placeholder";
}

/** @param {import("../data/columns.js").Rows} rows @param {number} row @param {{begun: number, total: number}|undefined} far */
function noteOf(rows, row, far) {
  // Beside a bar there is little room, and it says what is counted.
  if (far && rows.isGoing(row)) return `${exact(far.begun)} of ${exact(far.total)}`;
  if (far) return `${exact(far.begun)} of ${count(far.total, "iteration")}`;
  const isCut = rows.cut.has(row);
  if (rows.kind[row] === STEP) return isCut ? "truncated (max_tokens)" : rows.attempts[row] > 1 ? count(rows.attempts[row], "attempt") : "";
  if (isCut) return "truncated (max_tokens)";
  const isLoop = rows.children[row] > 0 && rows.kind[rows.first[row]] === ITERATION;
  if (isLoop) return count(rows.children[row], "iteration");
  return KINDS[rows.kind[row]] === "parallel" ? count(rows.children[row], "branch", "branches") : "";
}

/** @param {import("./model.js").RunModel} model @param {number} row @param {string} by */
function valueOf(model, row, by) {
  const { rows } = model;
  if (by === "cost") return Number.isNaN(rows.cost[row]) ? "" : shortMoney(rows.cost[row]);
  if (by === "tokens") return rows.tokens[row] ? short(rows.tokens[row]) : "";
  if (rows.start[row] < 0) return "";
  const ms = lengthOf(rows, row, model.endMs());
  return rows.end[row] < 0 ? `${soFar(ms)} …` : duration(ms);
}

/** The line that an event is in. @param {MouseEvent} event @returns {HTMLElement|null} */
function lineOf(event) {
  return /** @type {Element} */ (event.target).closest(".line");
}

/** Selects the line that was clicked, or opens it. @param {MouseEvent} event @param {import("./model.js").RunModel} model @param {import("./page.js").Controls} controls */
export function clicked(event, model, controls) {
  const line = lineOf(event);
  if (!line) return;
  const entry = model.view.entries[Number(line.dataset.at)];
  const isTwisty = /** @type {HTMLElement} */ (event.target).closest(".twisty");
  if (isTwisty || model.view.groupOf(entry)) toggle(model, entry);
  else {
    model.selected.value = entry;
    controls.panel.value = true;
  }
}

/** Opens or closes the line. @param {MouseEvent} event @param {import("./model.js").RunModel} model */
export function opened(event, model) {
  const line = lineOf(event);
  if (line) toggle(model, model.view.entries[Number(line.dataset.at)]);
}
