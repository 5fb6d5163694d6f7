// What is said where the connection to the server is lost.
import { html } from "../core/html.js";
import { RETRY } from "../core/stream.js";

export function Lost() {
  return html`<span class="lost problem" role="status">Connection lost, retrying …
    <button onClick=${() => dispatchEvent(new Event(RETRY))}>Retry now</button></span>`;
}
