// The mark of a status: a shape of its own for each, so that colour is never alone.
import { html } from "../core/html.js";

/** What the statuses are called on the screen. @type {Record<string, string>} */
export const SAID = {
  pending: "waits to start",
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
  return isAttempt && status === "retried" ? "failed, and tried again" : SAID[status];
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

/** The shapes for those who make their own elements: `<use href="#mark-failed">`. */
export function Marks() {
  return html`<svg class="marks" aria-hidden="true">${Object.entries(SHAPES).map(([status, shape]) =>
    html`<symbol key=${status} id=${`mark-${status}`} viewBox="0 0 14 14">${shape}</symbol>`)}</svg>`;
}

/** @param {{status: string, label?: boolean}} props `label`: whether a screen reader is told the status here */
export function Mark({ status, label = true }) {
  const shape = SHAPES[status] ?? SHAPES[status === "paused" ? "waiting" : "pending"];
  const said = SAID[status] ?? status;
  return html`<svg class=${`mark ${status}`} viewBox="0 0 14 14" role=${label ? "img" : "presentation"}
    aria-label=${label ? said : null} aria-hidden=${label ? null : "true"}><title>${said}</title>${shape}</svg>`;
}
