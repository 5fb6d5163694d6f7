// The bar at the top: where we are, what the page puts into it, and who is signed in.
import { html } from "../core/html.js";
import { me, signOut } from "../core/api.js";

/** @param {{children?: any}} props */
export function Top({ children }) {
  const who = me.value;
  return html`
    <header class="top">
      <a class="brand" href="/" aria-label="runglass: all runs">runglass</a>
      ${children ?? html`<span class="grow"></span>`}
      ${who && html`
        <span class="who muted cut" title=${`${who.keyName}… with the role ${who.role}`}>
          ${who.org}/${who.project} · ${who.role}
        </span>
        <button class="plain" onClick=${() => signOut()}>Sign out</button>`}
    </header>`;
}
