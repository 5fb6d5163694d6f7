// A word about what was just done, for a moment.
import { html, signal } from "../core/html.js";

const SHOWN_MS = 2000;
const said = signal("");
const isShown = signal(false);
let timer = 0;

/** @param {string} text */
export function say(text) {
  said.value = text;
  isShown.value = true;
  clearTimeout(timer);
  timer = setTimeout(() => { isShown.value = false; }, SHOWN_MS);
}

/** Puts text on the clipboard, and says so. @param {string} text @param {string} done */
export async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch {
    say("The browser does not allow copying here");
  }
}

export function Toast() {
  return html`<div class="toast" role="status" hidden=${!isShown.value}>${said.value}</div>`;
}
