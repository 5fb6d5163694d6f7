// What lies over the page until it is closed; and of that the help, which says what keys there are.
import { currentOf, html, signal, useLayoutEffect, useRef } from "../core/html.js";
import { bindings } from "../core/keys.js";

export const helpIsOpen = signal(false);

/** @param {{isOpen: import("../vendor/signals.js").Signal<boolean>, look: string, label: string, children?: import("../core/html.js").Children}} props */
export function Dialog({ isOpen, look, label, children }) {
  /** @type {import("../core/html.js").Ref<HTMLDialogElement>} */
  const dialog = useRef(null);
  const open = isOpen.value;
  // Before the next key comes, which is for this dialog.
  useLayoutEffect(() => {
    if (open) currentOf(dialog).showModal();
    else currentOf(dialog).close();
  }, [open]);
  return html`
    <dialog ref=${dialog} class=${look} aria-label=${label} onClose=${() => { if (!dialog.current?.open) isOpen.value = false; }}
      onClick=${(/** @type {MouseEvent} */ event) => { if (event.target === dialog.current) isOpen.value = false; }}>${open && children}</dialog>`;
}

export function Help() {
  return html`
    <${Dialog} isOpen=${helpIsOpen} look="help" label="Keyboard shortcuts">
      <form method="dialog"><h2>Keyboard shortcuts</h2><button class="plain" autofocus aria-label="Close" title="Close (Esc)">✕</button></form>
      <dl>${bindings.value.flat().filter((each) => each.what).map((each) => html`
        <div key=${each.key}><dt><kbd>${each.shown ?? each.key}</kbd></dt><dd>${each.what}</dd></div>`)}</dl>
    <//>`;
}
