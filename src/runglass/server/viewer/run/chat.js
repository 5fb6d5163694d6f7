// An llm step read as the conversation that it was.
import { html, useState } from "../core/html.js";
import { exact } from "../data/format.js";
import { sentBeside, turnsOf } from "../data/chat.js";
import { JsonTree } from "../parts/json_tree.js";

const LONG = 4000;

/** @param {{model: import("./model.js").RunModel, row: number, value: Json}} props */
export function Chat({ model, row, value }) {
  const said = model.changes.value >= 0 ? model.saidIn(row) : undefined;
  const calls = value.modelCalls ?? [];
  // A call that has ended is among the others once they are read anew.
  const isComing = said && value.status === "running" && !(said.isOver && calls.length >= said.calls);
  const turns = turnsOf(calls, isComing ? said.text : "", value.inputContext?.__rendered_prompt__);
  if (!turns.length) {
    return html`<div class="empty"><h2>The conversation was not kept</h2>
      <p>${value.spanId ? "Not sent, or not kept." : "The run's capture mode keeps no content of model calls."}</p></div>`;
  }
  const names = new Map(turns.flatMap((turn) => turn.calls.map((call) => [call.id, call.name])));
  return html`
    <ol class="chat">
      ${turns.map((turn, at) => html`
        <li key=${at} class=${`turn ${turn.role}`}>
          <p class="turn-role">${turn.role}${turn.answers ? ` ${names.get(turn.answers) ?? ""}` : ""}
            ${turn.call && calls.length > 1 && html`<span class="muted"> call ${turn.call}</span>`}</p>
          ${turn.text && html`<${Text} text=${turn.text} />`}
          ${turn.other !== undefined && html`<div class="json mono"><${JsonTree} value=${turn.other} /></div>`}
          ${turn.calls.map((call) => html`
            <div class="tool-call" key=${call.id}><p class="mono"><bdi>${call.name}</bdi></p>
              <div class="json mono"><${JsonTree} value=${call.args} /></div></div>`)}
        </li>`)}
    </ol>
    ${sentBeside(calls).map(([title, value]) => html`
      <h3 key=${title}>${title}</h3><div class="json mono"><${JsonTree} value=${value} /></div>`)}`;
}

/** @param {{text: string}} props */
function Text({ text }) {
  const [isWhole, setWhole] = useState(false);
  const isCut = text.length > LONG && !isWhole;
  return html`<p class="turn-text" dir="auto">${isCut ? `${text.slice(0, LONG)}…` : text}</p>
    ${isCut && html`<button class="plain" onClick=${() => setWhole(true)}>All ${exact(text.length)} characters</button>`}`;
}
