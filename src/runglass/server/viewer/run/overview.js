// The facts of an attempt, or of what has steps inside.
import { html } from "../core/html.js";
import { ATTEMPT, ITERATION, KINDS, NONE, STATUSES } from "../data/columns.js";
import { addressOf, pythonOf, titleOf } from "../data/address.js";
import { lengthOf } from "../data/filter.js";
import { count, duration, exact, exactTime, money, oneLine, size } from "../data/format.js";
import { costOf } from "../data/run.js";
import { JsonTree } from "../parts/json_tree.js";
import { SAID, saidOf } from "../parts/status.js";
import { reveal } from "./moves.js";
import { unattributed } from "./tree_rows.js";

/** @param {{model: import("./model.js").RunModel, row: number, value: Json, controls: import("./page.js").Controls}} props */
export function Overview({ model, row, value, controls }) {
  const { rows } = model;
  const status = STATUSES[rows.status[row]];
  const waited = waitBefore(rows, row);
  const error = value?.errorContext;
  const cost = costOf(value && { costUsd: value.costUsd, ...unknownIn(value.modelCalls ?? []) });
  const python = pythonOf(rows, row);
  return html`
    ${error && html`<p class=${`error-message ${status === "cancelled" ? "muted" : "problem"}`}><span class="mono">${String(error.code ?? "")}</span> <bdi>${oneLine(String(error.message ?? ""))}</bdi></p>`}
    ${value?.notes?.map((/** @type {string} */ note) => html`<p key=${note} class="notice noted"><bdi>${oneLine(note)}</bdi></p>`)}
    <dl class="facts">
      ${rows.isSpan(row) && html`<${SpanFacts} model=${model} row=${row} value=${value} />`}
      <${Fact} name="status">${saidOf(status, rows.kind[row] === ATTEMPT || rows.isRecorded)}${value?.finishReason ? ` · finish reason ${oneLine(value.finishReason, 60)}` : ""}<//>
      <${Times} model=${model} row=${row} />
      ${waited > 0 && html`<${Fact} name="waited">${duration(waited)} before this attempt<//>`}
      ${value?.modelUsed && html`<${Fact} name="model">${oneLine(value.modelUsed, 200)}<//>`}
      ${value?.tokens && html`<${Fact} name="tokens">${exact(value.tokens.prompt)} in + ${exact(value.tokens.completion)} out = ${exact(value.tokens.total)}<//>`}
      ${cost && html`<${Fact} name="cost">${cost}<//>`}
      ${rows.isSpan(row) && rows.children[row] > 0 && html`<${Fact} name="total" title="this span and all below it">${sumOf(rows, row)}<//>`}
      ${value?.inputSizeBytes !== undefined && html`<${Fact} name="input">${size(value.inputSizeBytes)}<//>`}
      ${value?.outputSizeBytes !== undefined && html`<${Fact} name="output">${size(value.outputSizeBytes)}${value.truncated ? ", truncated" : ""}<//>`}
      ${value?.reservation && html`<${Fact} name="reserved">${money(value.reservation.usd)}<//>`}
    </dl>
    ${value?.modelCalls?.length > 0 && html`<${Calls} calls=${value.modelCalls} />`}
    ${value?.spanId && html`<${SpanParts} value=${value} />`}
    <h3>In Python</h3>
    <p class="python"><code class="cut" title=${python}>${python}</code>
      <button class="plain" onClick=${() => controls.copy(python, "Copied")}>Copy</button></p>
    <h3>Address</h3>
    <p class="python"><code class="cut">${told(addressOf(rows, row))}</code>
      <button class="plain" onClick=${() => controls.copy(location.href, "Link copied")}>Copy link</button></p>`;
}

/** @param {{model: import("./model.js").RunModel, row: number}} props */
export function ContainerFacts({ model, row }) {
  const { rows } = model;
  if (rows.isRecorded) {
    return html`<p>Not received: other spans name it as their parent.</p>
      <dl class="facts"><${Fact} name="inside">${exact(rows.children[row])}<//><${Fact} name="total">${sumOf(rows, row)}<//></dl>`;
  }
  const far = model.loops.of(rows, row);
  const inner = rows.children[row] > 0 && rows.kind[rows.first[row]] === ITERATION ? "iterations" : "inside";
  return html`
    <dl class="facts">
      <${Fact} name="kind">${KINDS[rows.kind[row]]}<//>
      <${Fact} name="status">${SAID[STATUSES[rows.status[row]]]}<//>
      <${Times} model=${model} row=${row} />
      <${Fact} name=${inner}>${far ? `${exact(far.begun)} of ${exact(far.total)}` : exact(rows.children[row])}<//>
      ${rows.tokens[row] > 0 && html`<${Fact} name="tokens">${exact(rows.tokens[row])}<//>`}
      ${!Number.isNaN(rows.cost[row]) && html`<${Fact} name="cost">${money(rows.cost[row])}<//>`}
    </dl>
    <p class="muted">Tokens and cost include everything inside, every attempt.</p>`;
}

/** When it started and how long it took, where it did. @param {{model: import("./model.js").RunModel, row: number}} props */
function Times({ model, row }) {
  const [start, startedAt] = [model.rows.start[row], model.run.value?.startedAt];
  if (start < 0) return null;
  return html`
    <${Fact} name="took">${duration(lengthOf(model.rows, row, model.endMs()))}${model.rows.end[row] < 0 ? " so far" : ""}<//>
    <${Fact} name="started">${duration(start)} into the run${startedAt && ` · ${exactTime(new Date(Date.parse(startedAt) + start).toISOString())}`}<//>`;
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
          <td class="num">${call.tokens ? html`<span title=${partsOf(call)}>${exact(call.tokens.prompt)} + ${exact(call.tokens.completion)}</span>` : ""}</td>
          <td class="num">${call.costUsd ? `${money(call.costUsd)}${call.listCostUsd ? ` (ours: ${money(call.listCostUsd)})` : ""}${call.costEstimated ? " (reserved)" : ""}` : call.costUnknown ? "unknown" : ""}</td>
          <td class=${`cut ${call.errorCode ? "problem" : ""}`} title=${oneLine([call.errorCode, call.note].filter(Boolean).join(": "))}>${oneLine(call.errorCode ?? call.finishReason ?? "", 60)}</td>
        </tr>`)}</tbody>
    </table>`;
}

/** What of the tokens of a call is told apart. @param {Json} call */
function partsOf({ cachedTokens, cacheWriteTokens, reasoningTokens }) {
  const parts = { cached: cachedTokens, "written to the cache": cacheWriteTokens, reasoning: reasoningTokens };
  return Object.entries(parts).filter(([, tokens]) => tokens !== undefined).map(([name, tokens]) => `${exact(tokens)} ${name}`).join(", ");
}

/** What a span is, and where it stands. @param {{model: import("./model.js").RunModel, row: number, value: Json}} props */
function SpanFacts({ model, row, value }) {
  const { rows } = model;
  const earlier = rows.retryOf.get(row);
  const more = rows.unattributed.get(row);
  const parent = rows.parent[row];
  const goTo = (/** @type {number} */ to) => html`<button class="plain" onClick=${() => reveal(model, to)}><bdi>${oneLine(titleOf(rows, to), 80)}</bdi></button>`;
  return html`
    <${Fact} name="kind">${KINDS[rows.kind[row]]}${rows.context.has(row) ? ", above the entry of the run" : ""}<//>
    ${value && html`<${Fact} name="span"><code>${value.spanId}</code><//>`}
    ${value?.parentSpanId && html`<${Fact} name="parent"><code>${value.parentSpanId}</code> ${parent !== NONE && goTo(parent)}<//>`}
    ${value?.scope && html`<${Fact} name="scope">${oneLine(value.scope, 200)}<//>`}
    ${earlier !== undefined && html`<${Fact} name="retry of" title="inferred: same parent, name and kind, failed before">${goTo(earlier)}<//>`}
    ${more && html`<${Fact} name="unattributed" title="reported beyond the calls inside; in no sum">${unattributed(more)}<//>`}`;
}

/** What of a span has no other place. @param {{value: Json}} props */
function SpanParts({ value }) {
  const attributes = Object.entries(value.attributes ?? {});
  return html`
    ${attributes.length > 0 && html`<details class="span-part"><summary>${count(attributes.length, "attribute")}</summary>
      <table class="attributes"><tbody>${attributes.map(([name, each]) => html`<tr key=${name}><th scope="row"><bdi>${oneLine(name, 200)}</bdi></th>
        <td class="json mono"><${JsonTree} value=${each} /></td></tr>`)}</tbody></table></details>`}
    ${["events", "links"].map((part) => value[part]?.length > 0 && html`<details key=${part} class="span-part">
      <summary>${count(value[part].length, part.slice(0, -1))}</summary><div class="json mono"><${JsonTree} value=${value[part]} open=${true} /></div></details>`)}`;
}

/** @param {import("../data/columns.js").Rows} rows @param {number} row */
function sumOf(rows, row) {
  const cost = rows.cost[row];
  return [rows.tokens[row] > 0 && count(rows.tokens[row], "token"), !Number.isNaN(cost) && money(cost)].filter(Boolean).join(", ") || "no usage reported";
}

/** Of the calls of an attempt those without a known cost. @param {Json[]} calls */
function unknownIn(calls) {
  const without = (/** @type {string[]} */ ...reasons) => calls.filter((call) => reasons.includes(call.costUnknown)).length;
  const estimatedCostUsd = calls.find((call) => call.costEstimated)?.costUsd;
  return { unmeteredCalls: without("no_usage", "bad_usage"), unpricedCalls: without("no_price"), estimatedCostUsd };
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
