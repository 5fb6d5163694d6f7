// The facts of an attempt, or of what has steps inside.
import { html } from "../core/html.js";
import { ATTEMPT, ITERATION, KINDS, NONE, STATUSES } from "../data/columns.js";
import { addressOf, pythonOf } from "../data/address.js";
import { lengthOf } from "../data/filter.js";
import { duration, exact, exactTime, money, oneLine, size } from "../data/format.js";
import { costOf } from "../data/run.js";
import { SAID, saidOf } from "../parts/status.js";

/** @param {{model: import("./model.js").RunModel, row: number, value: Json, controls: import("./page.js").Controls}} props */
export function Overview({ model, row, value, controls }) {
  const { rows } = model;
  const going = rows.end[row] < 0 && rows.start[row] >= 0;
  const status = STATUSES[rows.status[row]];
  const started = startOf(model, row);
  const waited = waitBefore(rows, row);
  const error = value?.errorContext;
  const cost = costOf(value && { costUsd: value.costUsd, ...unknownIn(value.modelCalls ?? []) });
  const python = pythonOf(rows, row);
  return html`
    ${error && html`<p class=${`error-message ${status === "cancelled" ? "muted" : "problem"}`}><span class="mono">${String(error.code ?? "")}</span> <bdi>${oneLine(String(error.message ?? ""))}</bdi></p>`}
    <dl class="facts">
      <${Fact} name="status">${saidOf(status, rows.kind[row] === ATTEMPT)}${value?.finishReason ? ` · finish reason ${oneLine(value.finishReason, 60)}` : ""}<//>
      ${status !== "skipped" && html`
        <${Fact} name="took">${duration(lengthOf(rows, row, model.endMs()))}${going ? " so far" : ""}<//>
        <${Fact} name="started" title=${exactTime(started)}>${duration(rows.start[row])} into the run · ${exactTime(started)}<//>`}
      ${waited > 0 && html`<${Fact} name="waited">${duration(waited)} before this attempt<//>`}
      ${value?.modelUsed && html`<${Fact} name="model">${oneLine(value.modelUsed, 200)}<//>`}
      ${value?.tokens && html`<${Fact} name="tokens">${exact(value.tokens.prompt)} in + ${exact(value.tokens.completion)} out = ${exact(value.tokens.total)}<//>`}
      ${cost && html`<${Fact} name="cost">${cost}<//>`}
      ${value?.inputSizeBytes !== undefined && html`<${Fact} name="input">${size(value.inputSizeBytes)}<//>`}
      ${value?.outputSizeBytes !== undefined && html`<${Fact} name="output">${size(value.outputSizeBytes)}${value.truncated ? ", cut" : ""}<//>`}
      ${value?.reservation && html`<${Fact} name="reserved">${money(value.reservation.usd)}<//>`}
    </dl>
    ${value?.modelCalls?.length > 0 && html`<${Calls} calls=${value.modelCalls} />`}
    <h3>In Python</h3>
    <p class="python"><code class="cut" title=${python}>${python}</code>
      <button class="plain" onClick=${() => controls.copy(python, "The line is copied")}>Copy</button></p>
    <h3>Address</h3>
    <p class="python"><code class="cut">${told(addressOf(rows, row))}</code>
      <button class="plain" onClick=${() => controls.copy(location.href, "The link is copied")}>Copy link</button></p>`;
}

/** @param {{model: import("./model.js").RunModel, row: number}} props */
export function ContainerFacts({ model, row }) {
  const { rows } = model;
  const going = rows.end[row] < 0 && rows.start[row] >= 0;
  const far = model.loops.of(rows, row);
  const inner = rows.children[row] > 0 && rows.kind[rows.first[row]] === ITERATION ? "iterations" : "inside";
  return html`
    <dl class="facts">
      <${Fact} name="kind">${KINDS[rows.kind[row]]}<//>
      <${Fact} name="status">${SAID[STATUSES[rows.status[row]]]}<//>
      ${rows.start[row] >= 0 && html`
        <${Fact} name="took">${duration(lengthOf(rows, row, model.endMs()))}${going ? " so far" : ""}<//>
        <${Fact} name="started" title=${exactTime(startOf(model, row))}>${duration(rows.start[row])} into the run<//>`}
      <${Fact} name=${inner}>${far ? `${exact(far.begun)} of ${exact(far.total)}` : exact(rows.children[row])}<//>
      ${rows.tokens[row] > 0 && html`<${Fact} name="tokens">${exact(rows.tokens[row])}<//>`}
      ${!Number.isNaN(rows.cost[row]) && html`<${Fact} name="cost">${money(rows.cost[row])}<//>`}
    </dl>
    <p class="muted">Tokens and cost are sums of all that is inside, with every attempt.</p>`;
}

/** @param {{name: string, title?: string, children?: import("../core/html.js").Children}} props */
function Fact({ name, title, children }) {
  return html`<dt>${name}</dt><dd title=${title}>${children}</dd>`;
}

/** @param {{calls: Json[]}} props as the API gives them */
function Calls({ calls }) {
  return html`
    <h3>Model calls</h3>
    <table class="calls">
      <thead><tr><th scope="col">#</th><th scope="col">model</th><th scope="col" class="num">took</th><th scope="col" class="num">tokens</th>
        <th scope="col" class="num">cost</th><th scope="col">end</th></tr></thead>
      <tbody>${calls.map((call) => html`
        <tr key=${call.number}>
          <td>${call.number}</td>
          <td class="cut" title=${oneLine(call.model)}><bdi>${oneLine(call.modelUsed ?? call.model, 80)}</bdi></td>
          <td class="num" title=${call.timeToFirstTokenMs === undefined ? null : `first token after ${duration(call.timeToFirstTokenMs)}`}>${duration(call.durationMs)}</td>
          <td class="num">${call.tokens ? `${exact(call.tokens.prompt)} + ${exact(call.tokens.completion)}` : ""}</td>
          <td class="num">${call.costUsd ? `${money(call.costUsd)}${call.costEstimated ? " (reserved)" : ""}` : call.costUnknown ? "unknown" : ""}</td>
          <td class=${`cut ${call.errorCode ? "problem" : ""}`} title=${oneLine([call.errorCode, call.note].filter(Boolean).join(": "))}>${oneLine(call.errorCode ?? call.finishReason ?? "", 60)}</td>
        </tr>`)}</tbody>
    </table>`;
}

/** Of the calls of an attempt those without a known cost. @param {Json[]} calls */
function unknownIn(calls) {
  const without = (/** @type {string[]} */ ...reasons) => calls.filter((call) => reasons.includes(call.costUnknown)).length;
  const estimatedCostUsd = calls.find((call) => call.costEstimated)?.costUsd;
  return { unmeteredCalls: without("no_usage", "bad_usage"), unpricedCalls: without("no_price"), estimatedCostUsd };
}

/** @param {import("./model.js").RunModel} model @param {number} row */
function startOf(model, row) {
  const run = model.run.peek();
  return run?.startedAt && model.rows.start[row] >= 0
    ? new Date(Date.parse(run.startedAt) + model.rows.start[row]).toISOString() : "";
}

/** How long an attempt waited after the one before it. @param {import("../data/columns.js").Rows} rows @param {number} row */
function waitBefore(rows, row) {
  const before = rows.kind[row] === ATTEMPT ? rows.prev[row] : NONE;
  return before === NONE || rows.end[before] < 0 ? 0 : Math.max(0, rows.start[row] - rows.end[before]);
}

/** @param {import("../data/address.js").Address} address */
function told({ step, iteration, attempt }) {
  return step + (iteration.length ? `[${iteration.join(",")}]` : "") + (attempt ? ` attempt ${attempt}` : "");
}
