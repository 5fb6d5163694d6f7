// One attempt that differs: in what, and from what to what.
import { html, useState } from "../core/html.js";
import { count, duration, exact, money, oneLine, size } from "../data/format.js";
import { queryOf } from "../data/address.js";
import { JsonTree } from "../parts/json_tree.js";

/** @type {Record<string, string>} */
const SAID = {
  input: "input", output: "output", error: "error", status: "status", modelUsed: "model", tokens: "tokens",
  costUsd: "cost", durationMs: "duration", inputSizeBytes: "input size", outputSizeBytes: "output size",
  finishReason: "finish reason", modelRequests: "model request", modelResponses: "model response",
};
const CONTENT = new Set(["input", "modelRequests", "error", "output", "modelResponses"]);

/** @typedef {{path: string, kind: "added"|"removed"|"changed", a?: Json, b?: Json, cut?: boolean}} Place */
/** @typedef {{field: string, a?: Json, b?: Json, paths?: Place[], cut?: boolean}} Change */
/** @typedef {{stepId: string, loopPath?: number[], stepIdB?: string, loopPathB?: number[], attempt: number, inA: boolean, inB: boolean, changes: Change[]}} DiffRowData */

/** @param {{row: DiffRowData, a: string, b: string, isOpenAtFirst: boolean}} props */
export function DiffRow({ row, a, b, isOpenAtFirst }) {
  const [isOpen, setOpen] = useState(isOpenAtFirst);
  const only = row.inA && row.inB ? "" : row.inA ? "only in A" : "only in B";
  const isSame = !only && !row.changes.some((change) => change.field !== "durationMs");
  return html`
    <li class=${`diff-row ${isSame ? "is-same" : ""}`}>
      <button class="plain" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
        <span class="twisty">${isOpen ? "▾" : "▸"}</span>
        <span class="diff-name cut"><bdi>${oneLine(row.stepId, 120)}</bdi>${row.loopPath ? ` [${row.loopPath.join(", ")}]` : ""}
          ${row.attempt > 1 && html`<span class="muted"> attempt ${row.attempt}</span>`}</span>
        <span class="diff-what cut">${only ? html`<b>${only}</b> ${briefly(row)}` : isSame ? html`<span class="muted">unchanged</span>` : summary(row)}</span>
      </button>
      ${isOpen && html`<${Details} row=${row} a=${a} b=${b} />`}
    </li>`;
}

/** @param {DiffRowData} row */
function summary(row) {
  const parts = row.changes.filter((change) => change.field !== "durationMs");
  return parts.map((change, at) => html`${at > 0 && html`<span class="muted"> · </span>`}
    <span>${SAID[change.field] ?? change.field}${CONTENT.has(change.field) ? "" : `: ${shown(change.field, change.a)} → ${shown(change.field, change.b)}`}</span>`);
}

/** What is known of an attempt that one run alone has. @param {DiffRowData} row */
function briefly(row) {
  return row.changes.filter((change) => !CONTENT.has(change.field))
    .map(({ field, a, b }) => named(field, row.inA ? a : b)).filter(Boolean).join(" · ");
}

/** A value where nothing beside it says what it is. @param {string} field @param {Json} value */
function named(field, value) {
  if (field === "tokens") return count(value.total ?? 0, "token");
  return `${field.endsWith("SizeBytes") ? `${SAID[field]} ` : ""}${shown(field, value)}`;
}

/** @param {{row: DiffRowData, a: string, b: string}} props */
function Details({ row, a, b }) {
  const inB = row.stepIdB ? { stepId: row.stepIdB, loopPath: row.loopPathB } : row;
  return html`
    <div class="diff-details">
      <p class="diff-links">${row.inA && html`<a href=${`/runs/${a}?${linkOf(row, row.attempt)}`}>Open in A</a>`}
        ${row.inB && html`<a href=${`/runs/${b}?${linkOf(inB, row.attempt)}`}>Open in B</a>`}</p>
      <${ChangeTable} changes=${row.changes} a="A" b="B" />
    </div>`;
}

/** @param {{stepId: string, loopPath?: number[]}} at @param {number} attempt */
function linkOf({ stepId, loopPath = [] }, attempt) {
  const query = new URLSearchParams();
  const address = { step: stepId, iteration: loopPath, attempt: attempt > 1 ? attempt : 0 };
  for (const [name, value] of Object.entries(queryOf(address))) if (value !== null) query.set(name, String(value));
  return query;
}

/** From what to what each field has changed. @param {{changes: Change[], a: string, b: string}} props what the sides are called */
export function ChangeTable({ changes, a, b }) {
  return html`
    <table class="diff-table">
      <thead><tr><th scope="col">field</th><th scope="col">${a}</th><th scope="col">${b}</th></tr></thead>
      <tbody>${changes.map((change) => html`<${ChangeLines} key=${change.field} change=${change} />`)}</tbody>
    </table>`;
}

/** @param {{change: Change}} props */
function ChangeLines({ change }) {
  if (!change.paths) {
    return html`<tr><th scope="row">${SAID[change.field] ?? change.field}</th>
      <td>${shown(change.field, change.a)}</td><td>${shown(change.field, change.b)}</td></tr>`;
  }
  return html`
    ${change.paths.map((each, at) => html`
      <tr key=${at} class=${each.kind}>
        <th scope="row">${SAID[change.field] ?? change.field} <code><bdi>${partsOf(each.path)}</bdi></code>
          <span class="muted"> ${each.kind}${each.cut ? ", truncated" : ""}</span></th>
        <td>${each.kind !== "added" && html`<${Value} value=${each.a} />`}</td>
        <td>${each.kind !== "removed" && html`<${Value} value=${each.b} />`}</td>
      </tr>`)}
    ${change.cut && html`<tr><th scope="row" colspan="3" class="muted">${SAID[change.field] ?? change.field}: there may be more differences</th></tr>`}`;
}

/** A path that goes on in the next line where one of its names begins, and not within it. @param {string} path */
function partsOf(path) {
  return oneLine(path, 300).split(/(?=[.[])/).map((part) => html`<wbr />${part}`);
}

/** @param {{value: Json}} props */
function Value({ value }) {
  return html`<div class="json mono"><${JsonTree} value=${value ?? null} /></div>`;
}

/** @param {string} field @param {Json} value */
function shown(field, value) {
  if (value === undefined || value === null) return "–";
  if (field === "durationMs") return duration(value);
  if (field === "costUsd") return money(value);
  if (field === "tokens") return exact(value.total ?? 0);
  if (field.endsWith("SizeBytes")) return size(value);
  return oneLine(String(value), 200);
}
