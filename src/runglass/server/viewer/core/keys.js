// The keyboard: each page says which keys it knows, and the help shows what is in force.
import { signal } from "./html.js";

/** `isMotion`: it leads a step further, and is no command that somebody would look for by its name.
 * @typedef {{key: string, shown?: string, what: string, isMotion?: boolean, run: (event: KeyboardEvent) => void}} Binding */

/** The bindings in force, of the page first. @type {import("../vendor/signals.js").Signal<Binding[][]>} */
export const bindings = signal([]);

/** Puts bindings into force until the returned function is called. @param {Binding[]} list */
export function bind(list) {
  bindings.value = [list, ...bindings.peek()];
  return () => { bindings.value = bindings.peek().filter((each) => each !== list); };
}

/** The name of the key of an event, as bindings spell it: `j`, `Enter`, `Ctrl-k`. @param {KeyboardEvent} event */
export function nameOf(event) {
  const held = event.ctrlKey || event.metaKey ? "Ctrl-" : event.altKey ? "Alt-" : "";
  return held + event.key;
}

/** Listens to the keyboard. Keys that are typed into a field stay there, except those with Ctrl. */
export function listen() {
  addEventListener("keydown", (event) => {
    if (event.isComposing || event.defaultPrevented) return;
    const target = event.target;
    const name = nameOf(event);
    const typed = target instanceof HTMLElement
      && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
    if (typed && !name.startsWith("Ctrl-")) return;
    if (document.querySelector("dialog[open]") && !name.startsWith("Ctrl-")) return;
    // A button or link that has the focus is worked by Enter itself.
    if (name === "Enter" && target instanceof HTMLElement && /^(BUTTON|A|SUMMARY)$/.test(target.tagName)) return;
    for (const list of bindings.peek()) {
      const found = list.find((each) => each.key === name);
      if (found) {
        event.preventDefault();
        found.run(event);
        return;
      }
    }
  });
}
