// The viewer: who is signed in sees the page that the address names.
import { html, render, useEffect, useState } from "./core/html.js";
import { begin, errorOf, forgetOthers, identify, me } from "./core/api.js";
import { PROOF } from "./core/kept.js";
import { bind, listen } from "./core/keys.js";
import { followLinks, place } from "./core/router.js";
import { ComparePage } from "./compare/page.js";
import { Help, helpIsOpen } from "./parts/dialog.js";
import { Palette, paletteIsOpen } from "./parts/palette.js";
import { SignIn } from "./parts/sign_in.js";
import { Marks } from "./parts/status.js";
import { Toast } from "./parts/toast.js";
import { Top } from "./parts/top.js";
import { firstReads } from "./run/model.js";
import { RunPage } from "./run/page.js";
import { RunsPage } from "./runs/page.js";

// What the page asks for first is on its way before anything is drawn.
const [run] = /(?<=^\/runs\/)[0-9a-f-]{36}$/.exec(location.pathname) ?? [];
if (run) firstReads(run).forEach(begin);
const known = identify();

/** @param {{known: Promise<void>}} props settled once it is known who is signed in */
function App({ known }) {
  const [problem, setProblem] = useState("");
  useEffect(() => {
    known.catch((error) => setProblem(errorOf(error).message));
    return bind([
      { key: "?", what: "keyboard shortcuts", run: () => { helpIsOpen.value = true; } },
      { key: "Ctrl-k", shown: "Ctrl-K", what: "command palette", run: () => { paletteIsOpen.value = true; } },
    ]);
  }, []);
  if (problem) return html`<main class="empty"><div role="alert"><h1>The page cannot be shown</h1><p>${problem}</p></div>
    <button onClick=${() => location.reload()}>Try again</button></main>`;
  if (me.value === undefined) return null;
  if (me.value === null) return html`<${SignIn} />`;
  return html`<${Marks} />${pageOf(place.value.path)}<${Palette} /><${Help} /><${Toast} />`;
}

/** @param {string} path */
function pageOf(path) {
  const [, kind, first, second, ...more] = path.split("/").map(decoded);
  if (kind === "") return html`<${RunsPage} key="runs" />`;
  if (kind === "runs" && first && second === undefined) return html`<${RunPage} key=${path} id=${first} />`;
  if (kind === "compare" && first && second && !more.length) return html`<${ComparePage} key=${path} a=${first} b=${second} />`;
  return html`<${Top} back /><main class="empty"><h1>Page not found</h1><p><a href="/">All runs</a></p></main>`;
}

/** A part of a path, which somebody may have cut within an escape. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// The script is in the head, so that a chosen theme is there before the page is.
addEventListener("DOMContentLoaded", () => {
  followLinks();
  listen();
  // Another tab has signed in or out, perhaps while this page was left. Whoever does something next is told of a failure.
  const again = () => {
    forgetOthers();
    identify().catch(() => {});
  };
  addEventListener("storage", (event) => { if (event.key === PROOF) again(); });
  addEventListener("pageshow", (event) => { if (event.persisted) again(); });
  render(html`<${App} known=${known} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
});
