// The attempt as the API gives it.
import { html, useMemo, useState } from "../core/html.js";
import { errorOf } from "../core/api.js";
import { exact, size } from "../data/format.js";
import { Download } from "../parts/download.js";

const FIRST = 50_000;

/** @param {{value: Json, path: string, controls: import("./page.js").Controls}} props `path`: where the API has all of it */
export function Raw({ value, path, controls }) {
  const [most, setMost] = useState(FIRST);
  const text = useMemo(() => written(value), [value]);
  return html`
    <div class="content-bar">
      ${value.leftOut && html`<span class="muted">without ${Object.entries(value.leftOut).map(([part, bytes]) => `${part} (${size(Number(bytes))})`).join(", ")}</span>`}
      <${Download} path=${path} name=${`${value.stepId}.json`} />
      <button class="plain" onClick=${() => controls.copy(text, "JSON copied")}>Copy</button>
    </div>
    <pre class="raw">${text.slice(0, most)}</pre>
    ${text.length > most && html`<button onClick=${() => setMost(most * 10)}>${exact(text.length - most)} more characters</button>`}`;
}

/** @param {Json} value */
function written(value) {
  try {
    return JSON.stringify(value, null, 2);
  } catch (error) {
    // The browser gives up on what is nested thousands of levels deep.
    return `This value cannot be written as text: ${errorOf(error).message}. Its tree can be opened level by level.`;
  }
}
