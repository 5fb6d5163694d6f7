// Everything that can be done here, found by typing: Ctrl-K.
import { html, signal, useState } from "../core/html.js";
import { bindings } from "../core/keys.js";
import { go } from "../core/router.js";
import { setTheme } from "../core/theme.js";
import { Dialog } from "./dialog.js";
import { leave } from "./top.js";

export const paletteIsOpen = signal(false);

/** @typedef {{what: string, key?: string, run: () => void}} Command */

/** What a page adds: places to go to by what is typed. @type {import("../vendor/signals.js").Signal<(text: string) => Command[]>} */
export const finder = signal(() => []);

const RUN_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** @param {string} text @returns {Command[]} */
function commandsFor(text) {
  const typed = text.trim();
  const always = [
    { what: "all runs", run: () => go("/") },
    { what: "failed runs of the last 24 hours", run: () => go("/?q=status:failed+since:24h") },
    { what: "theme: system", run: () => setTheme("system") },
    { what: "theme: light", run: () => setTheme("light") },
    { what: "theme: dark", run: () => setTheme("dark") },
    { what: "sign out", run: leave },
  ];
  const keyed = bindings.peek().flat().filter((each) => each.what && !each.isMotion)
    .map((each) => ({ what: each.what, key: each.shown ?? each.key, run: () => each.run(new KeyboardEvent("keydown", { key: each.key })) }));
  const words = typed.toLowerCase().split(/\s+/);
  const found = [...keyed, ...always].filter((each) => words.every((word) => each.what.toLowerCase().includes(word)));
  const places = RUN_ID.test(typed) ? [{ what: `open run ${typed}`, run: () => go(`/runs/${typed.toLowerCase()}`) }] : finder.peek()(typed);
  const search = typed ? [{ what: `find runs: ${typed}`, run: () => go(`/?${new URLSearchParams({ q: typed })}`) }] : [];
  return [...places, ...found, ...search].slice(0, 14);
}

export function Palette() {
  return html`<${Dialog} isOpen=${paletteIsOpen} look="palette" label="Command palette"><${Commands} /><//>`;
}

function Commands() {
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(0);
  const commands = commandsFor(text);
  /** @param {Command|undefined} command */
  function take(command) {
    paletteIsOpen.value = false;
    // Closed first: then the focus is where it was, and the command may put it elsewhere.
    if (command) queueMicrotask(command.run);
  }
  /** @param {KeyboardEvent} event */
  function key(event) {
    const by = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (by) {
      event.preventDefault();
      setChosen((chosen + by + commands.length) % Math.max(1, commands.length));
    } else if (event.key === "Enter") {
      event.preventDefault();
      take(commands[chosen]);
    }
  }
  return html`
    <input autofocus role="combobox" aria-label="Command" aria-expanded="true" aria-controls="palette-list"
      aria-activedescendant=${`palette-${chosen}`} placeholder="a step, a command, a run id, a query" value=${text}
      spellcheck=${false} onKeyDown=${key} onInput=${(/** @type {import("../core/html.js").EventOf<HTMLInputElement>} */ event) => { setText(event.currentTarget.value); setChosen(0); }} />
    <ul id="palette-list" role="listbox" aria-label="Commands">
      ${commands.map((command, at) => html`
        <li key=${at} id=${`palette-${at}`} role="option" aria-selected=${at === chosen} onClick=${() => take(command)}>
          <span class="cut"><bdi>${command.what}</bdi></span>${command.key && html`<kbd>${command.key}</kbd>`}</li>`)}
    </ul>`;
}
