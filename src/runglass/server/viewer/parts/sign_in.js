// The sign-in: a key, once.
import { currentOf, html, useRef, useState } from "../core/html.js";
import { ApiError, errorOf, signIn, wasSignedOut } from "../core/api.js";
import { place } from "../core/router.js";

/** The form; the page that was asked for is shown once somebody has signed in. */
export function SignIn() {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  /** @type {import("../core/html.js").Ref<HTMLInputElement>} */
  const field = useRef(null);
  const wasUsed = place.value.query.get("ticket") === "used";

  /** @param {SubmitEvent} event */
  async function submit(event) {
    event.preventDefault();
    const key = currentOf(field).value.trim();
    if (!key.startsWith("nk_")) {
      setProblem("A key begins with nk_. An administrator creates one: runglass keys create ORG/PROJECT --role read");
      return;
    }
    setBusy(true);
    setProblem("");
    try {
      await signIn(key);
    } catch (error) {
      const isRefused = error instanceof ApiError && error.status === 401;
      setProblem(isRefused ? "This key is unknown or revoked." : errorOf(error).message);
      field.current?.select();
    }
    setBusy(false);
  }

  return html`
    <main class="sign-in">
      <h1>runglass</h1>
      <p class="muted">Sign in with a project's API key to see its runs.</p>
      ${wasUsed && html`<p class="notice">This link was already used, or is older than a minute.
        ${" "}<code>runglass open</code> creates a new one.</p>`}
      ${wasSignedOut.value && html`<p class="notice">Your session has ended: it expired, you signed out in another tab,
        or its key was revoked. Sign in to continue on this page.</p>`}
      <form onSubmit=${submit}>
        <label for="key">API key</label>
        <input id="key" ref=${field} type="password" name="key" autocomplete="off" spellcheck=${false}
          placeholder="nk_live_…" autofocus required aria-describedby="key-about key-problem" />
        <button class="primary" disabled=${busy}>${busy ? "Signing in …" : "Sign in"}</button>
      </form>
      <p id="key-problem" class="problem" role="alert">${problem}</p>
      <p id="key-about" class="muted">The key is sent to this server once, and stored neither in a cookie nor in this
        browser. On the server's own machine <code>runglass open</code> signs in without it.</p>
    </main>`;
}
