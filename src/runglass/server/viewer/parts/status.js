// The mark of a status: a shape of its own for each, so that colour is never alone.
import { html } from "../core/html.js";

/** What the statuses are called on the screen. @type {Record<string, string>} */
export const SAID = {
  pending: "waiting to start",
  running: "running",
  paused: "waiting",
  waiting: "waiting",
  completed: "completed",
  failed: "failed",
  cancelled: "cancelled",
  retried: "completed after a retry",
  skipped: "skipped",
};

/** What a row's status is called: an attempt that was tried again has failed itself.
 * @param {string} status @param {boolean} isAttempt */
export function saidOf(status, isAttempt) {
  return isAttempt && status === "retried" ? "failed, retried" : SAID[status];
}

/** @type {Record<string, import("../core/html.js").Children>} */
const SHAPES = {
  completed: html`<path d="M3 7.5 6 10.5 11 4" />`,
  failed: html`<path d="M3 3 11 11M11 3 3 11" />`,
  running: html`<path class="pulse" d="M4.5 3 11 7 4.5 11Z" stroke-linejoin="round" />`,
  retried: html`<path d="M11 7a4 4 0 1 1-1.3-3M11.2 1.8 10.6 4.6 8 4" />`,
  skipped: html`<circle cx="7" cy="7" r="3.6" />`,
  waiting: html`<path d="M5 3V11M9 3V11" />`,
  pending: html`<path d="M3 7h.01M7 7h.01M11 7h.01" />`,
  cancelled: html`<circle cx="7" cy="7" r="4.6" stroke-width="1.6" /><path d="M4 10 10 4" stroke-width="1.6" />`,
};

/** Of each kind of step a glyph, which is quieter than the mark of its status. @type {Record<string, import("../core/html.js").Children>} */
const GLYPHS = {
  llm: html`<path d="M2 3H12V9.5H6.5L4 12V9.5H2Z" />`,
  code: html`<path d="M5 4 2 7 5 10M9 4 12 7 9 10" />`,
  wait: html`<circle cx="7" cy="7" r="4.8" /><path d="M7 4.2V7L9 8.2" />`,
  passthrough: html`<path d="M2 7H12M9 4 12 7 9 10" />`,
  tool: html`<path d="M9.5 2.2a3 3 0 0 0-3.6 3.9L2 10l2 2 3.9-3.9a3 3 0 0 0 3.9-3.6L9.8 6.500 7.5 4.200Z" />`,
  retrieval: html`<circle cx="6" cy="6" r="3.600" /><path d="M8.700 8.700 12 12" />`,
  embedding: html`<path d="M3 3H3.010M7 3H7.010M11 3H11.010M3 7H3.010M7 7H7.010M11 7H11.010M3 11H3.010M7 11H7.010M11 11H11.010" stroke-width="2" />`,
  agent: html`<circle cx="7" cy="4.200" r="2.400" /><path d="M2.500 12a4.500 4.500 0 0 1 9 0" />`,
  chain: html`<rect x="1.500" y="5" width="6" height="4" rx="2" /><rect x="6.500" y="5" width="6" height="4" rx="2" />`,
  guardrail: html`<path d="M7 1.800 12 3.500V7c0 2.600-2 4.300-5 5.200C4 11.300 2 9.600 2 7V3.500Z" />`,
  other: html`<circle cx="7" cy="7" r="2" />`,
  placeholder: html`<rect x="2.500" y="3.500" width="9" height="7" stroke-dasharray="1.800 1.800" />`,
  loop: html`<path d="M3 8.5V5.5a2 2 0 0 1 2-2H12M10 1.5 12 3.5 10 5.5M11 5.5V8.5a2 2 0 0 1-2 2H2M4 8.5 2 10.5 4 12.5" />`,
  parallel: html`<path d="M2 7H5M5 3V11M5 3H12M5 7H12M5 11H12" />`,
  condition: html`<path d="M2 7H5L9 3H12M5 7 9 11H12" />`,
};

/** The shapes for those who make their own elements: `<use href="#mark-failed">`, `<use href="#kind-llm">`. */
export function Marks() {
  const shapes = [...Object.entries(SHAPES).map(([name, shape]) => [`mark-${name}`, shape]),
    ...Object.entries(GLYPHS).map(([name, shape]) => [`kind-${name}`, shape])];
  return html`<svg class="marks" aria-hidden="true">${shapes.map(([id, shape]) =>
    html`<symbol key=${id} id=${id} viewBox="0 0 14 14">${shape}</symbol>`)}</svg>`;
}

/** @param {{status: string, label?: boolean}} props `label`: whether a screen reader is told the status here */
export function Mark({ status, label = true }) {
  const shape = SHAPES[status] ?? SHAPES[status === "paused" ? "waiting" : "pending"];
  const said = SAID[status] ?? status;
  return html`<svg class=${`mark ${status}`} viewBox="0 0 14 14" role=${label ? "img" : "presentation"}
    aria-label=${label ? said : null} aria-hidden=${label ? null : "true"}><title>${said}</title>${shape}</svg>`;
}
