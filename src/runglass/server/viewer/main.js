// The viewer: who is signed in sees the page that the address names.
import { html, render, useEffect, useState } from "./core/html.js";
import { identify, me } from "./core/api.js";
import { listen } from "./core/keys.js";
import { followLinks, place } from "./core/router.js";
import { SignIn } from "./parts/sign_in.js";
import { RunsPage } from "./runs/page.js";

function App() {
  const [problem, setProblem] = useState("");
  useEffect(() => {
    identify().catch((error) => setProblem(error.message));
  }, []);
  if (problem) return html`<div class="empty" role="alert"><h2>Nothing can be shown</h2><p>${problem}</p></div>`;
  if (me.value === undefined) return null;
  if (me.value === null) return html`<${SignIn} />`;
  return pageOf(place.value.path);
}

/** @param {string} path */
function pageOf(path) {
  return html`<${RunsPage} key=${path} />`;
}

followLinks();
listen();
render(html`<${App} />`, document.getElementById("app"));
