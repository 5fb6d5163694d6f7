// What components are made of: `html` makes elements of a template, and text in it is always text.
import htm from "../vendor/htm.js";
import { h, render } from "../vendor/preact.js";

export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
export { batch, effect, signal, useSignal } from "../vendor/signals.js";

export const html = htm.bind(h);
export { h, render };

/** What holds an element once it is on the page, or whatever else a component keeps. @template T @typedef {import("../vendor/preact.js").RefObject<T|null>} Ref */
/** An event as a listener of the element has it. @template {EventTarget} T @template {Event} [Kind=Event]
 * @typedef {import("../vendor/preact.js").TargetedEvent<T, Kind>} EventOf */
/** What a component gives back. @typedef {import("../vendor/preact.js").ComponentChildren} Children */

/** What a ref holds, for effects and listeners: by then there is something. @template T @param {Ref<T>} ref @returns {T} */
export function currentOf(ref) {
  if (ref.current === null) throw new Error("A component was used before it was on the page");
  return ref.current;
}
