// The viewer: who is signed in sees the page that the address names.
import { html, render, useEffect, useState } from "./core/html.js";
import { begin, errorOf, forgetOthers, identify, me } from "./core/api.js";
import { PROOF } from "./core/kept.js";
import { bind, listen } from "./core/keys.js";
import { followLinks, place } from "./core/router.js";
import { ComparePage } from "./compare/page.js";
import { Help, helpIsOpen } from "./parts/help.js";
import { Palette, paletteIsOpen } from "./parts/palette.js";
import { SignIn } from "./parts/sign_in.js";
import { Marks } from "./parts/status.js";
import { Toast } from "./parts/toast.js";
import { Top } from "./parts/top.js";
import { firstReads } from "./run/model.js";
import { RunPage } from "./run/page.js";
import { RunsPage } from "./runs/page.js";

const OPEN_PALETTE = "runglass-palette";

// What the page asks for first is on its way before anything is drawn.
const [run] = /(?<=^\/runs\/)[0-9a-f-]{36}$/.exec(location.pathname) ?? [];
if (run) firstReads(run).forEach(begin);
const known = identify();

/** @param {{known: Promise<void>}} props settled once it is known who is signed in */
function App({ known }) {
  const [problem, setProblem] = useState("");
  useEffect(() => {
    known.catch((error) => setProblem(errorOf(error).message));
    const open = () => { paletteIsOpen.value = true; };
    addEventListener(OPEN_PALETTE, open);
    const unbind = bind([
      { key: "?", what: "keyboard shortcuts", run: () => { helpIsOpen.value = true; } },
      { key: "Ctrl-k", shown: "Ctrl-K", what: "command palette", run: open },
    ]);
    return () => {
      removeEventListener(OPEN_PALETTE, open);
      unbind();
    };
  }, []);
  if (problem) return html`<main class="empty"><div role="alert"><h1>The page cannot be shown</h1><p>${problem}</p></div></main>`;
  if (me.value === undefined) return null;
  if (me.value === null) return html`<${SignIn} />`;
  return html`<${Marks} />${pageOf(place.value.path)}<${Palette} /><${Help} /><${Toast} />`;
}

/** @param {string} path */
function pageOf(path) {
  const [, kind, first, ...more] = path.split("/");
  if (kind === "") return html`<${RunsPage} key="runs" />`;
  if (kind === "runs" && first && !more.length) return html`<${RunPage} key=${path} id=${decodeURIComponent(first)} />`;
  if (kind === "compare" && first && more.length === 1) {
    return html`<${ComparePage} key=${path} a=${decodeURIComponent(first)} b=${decodeURIComponent(more[0])} />`;
  }
  return html`<${Top} back /><main class="empty"><h1>Page not found</h1><p><a href="/">All runs</a></p></main>`;
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
