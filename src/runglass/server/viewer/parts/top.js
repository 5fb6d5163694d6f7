// The bar at the top: where we are, what the page puts into it, and who is signed in.
import { html } from "../core/html.js";
import { errorOf, me, signOut } from "../core/api.js";
import { say } from "./toast.js";

/** Signs out, or says why nobody is signed out. */
export const leave = () => signOut().catch((error) => say(errorOf(error).message));

/** @param {{children?: import("../core/html.js").Children, back?: boolean}} props `back`: whether this is a page that the runs lead to */
export function Top({ children, back = false }) {
  const who = me.value;
  return html`
    <header class="top">
      <a class="brand" href="/">${back ? "‹ runs" : "runglass"}</a>
      ${children ?? html`<span class="grow"></span>`}
      ${who && html`
        <span class="who muted cut" title=${`${who.keyName}… with the role ${who.role}`}>
          ${who.org}/${who.project} · ${who.role}
        </span>
        <button class="plain" onClick=${leave}>Sign out</button>`}
    </header>`;
}
