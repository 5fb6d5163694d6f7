// The viewer: who is signed in sees the page that the address names.
import { html, render, useEffect, useState } from "./core/html.js";
import { errorOf, identify, me } from "./core/api.js";
import { bind, listen } from "./core/keys.js";
import { lazy, loadAll } from "./core/lazy.js";
import { followLinks, place } from "./core/router.js";
import { Help, helpIsOpen } from "./parts/help.js";
import { Palette, paletteIsOpen } from "./parts/palette.js";
import { Marks } from "./parts/status.js";
import { Toast } from "./parts/toast.js";
import { Top } from "./parts/top.js";

const ComparePage = lazy(async () => (await import("./compare/page.js")).ComparePage);
const RunPage = lazy(async () => (await import("./run/page.js")).RunPage);
const RunsPage = lazy(async () => (await import("./runs/page.js")).RunsPage);
const SignIn = lazy(async () => (await import("./parts/sign_in.js")).SignIn);

const SEEN_MS = 500;
/** What a page may need later is loaded so long after it was, when it has its own. */

const OPEN_PALETTE = "runglass-palette";

function App() {
  const [problem, setProblem] = useState("");
  useEffect(() => {
    known.catch((error) => setProblem(errorOf(error).message));
    const open = () => { paletteIsOpen.value = true; };
    addEventListener(OPEN_PALETTE, open);
    const unbind = bind([
      { key: "?", what: "all keys", run: () => { helpIsOpen.value = true; } },
      { key: "Ctrl-k", shown: "Ctrl-K", what: "everything", run: open },
    ]);
    return () => {
      removeEventListener(OPEN_PALETTE, open);
      unbind();
    };
  }, []);
  if (problem) return html`<main class="empty"><div role="alert"><h1>Nothing can be shown</h1><p>${problem}</p></div></main>`;
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
  return html`<${Top} back /><main class="empty"><h1>There is no such page</h1><p><a href="/">All runs</a></p></main>`;
}

// Before anything is painted, which effects wait for.
const known = identify();
addEventListener("load", () => setTimeout(loadAll, SEEN_MS));
followLinks();
listen();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
