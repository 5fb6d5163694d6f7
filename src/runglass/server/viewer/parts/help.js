// Which keys there are on this page.
import { currentOf, html, signal, useLayoutEffect, useRef } from "../core/html.js";
import { bindings } from "../core/keys.js";

export const helpIsOpen = signal(false);

export function Help() {
  /** @type {import("../core/html.js").Ref<HTMLDialogElement>} */
  const dialog = useRef(null);
  const open = helpIsOpen.value;
  useLayoutEffect(() => {
    if (open) currentOf(dialog).showModal();
    else currentOf(dialog).close();
  }, [open]);
  const shown = bindings.value.flat().filter((each) => each.what);
  return html`
    <dialog ref=${dialog} class="help" aria-label="Keyboard shortcuts" onClose=${() => { helpIsOpen.value = false; }}
      onClick=${(/** @type {MouseEvent} */ event) => { if (event.target === dialog.current) helpIsOpen.value = false; }}>
      ${open && html`
        <form method="dialog"><h2>Keyboard shortcuts</h2><button class="plain" autofocus aria-label="Close" title="Close (Esc)">✕</button></form>
        <dl>${shown.map((each) => html`<div key=${each.key}><dt><kbd>${each.shown ?? each.key}</kbd></dt><dd>${each.what}</dd></div>`)}</dl>`}
    </dialog>`;
}
