// Content that is too large to be read unasked: its beginning as text, more of it, or all of it as a file.
import { html, useEffect, useMemo, useState } from "../core/html.js";
import { errorOf } from "../core/api.js";
import { RangeReader } from "../core/ranges.js";
import { size } from "../data/format.js";
import { Download } from "../parts/download.js";

export const FIRST_BYTES = 65_536;
const MORE_BYTES = 4 * FIRST_BYTES;

/** @param {{path: string, name: string}} props `path` below `/api/v1`, `name` that of the file */
export function LargeContent({ path, name }) {
  const reader = useMemo(() => new RangeReader(path), [path]);
  const [shown, show] = useState({ path: "", text: "", have: 0, size: 0 });
  const [problem, setProblem] = useState("");
  const [abort, setAbort] = useState(() => new AbortController());

  /** @param {number} bytes @param {AbortSignal} signal */
  async function more(bytes, signal) {
    setProblem("");
    try {
      await reader.more(bytes, signal);
      show({ path, text: reader.text, have: reader.have, size: reader.size });
    } catch (error) {
      if (!signal.aborted) setProblem(errorOf(error).message);
    }
  }
  useEffect(() => {
    const leaves = new AbortController();
    setAbort(leaves);
    more(FIRST_BYTES, leaves.signal);
    return () => leaves.abort();
  }, [path]);

  const isThere = shown.path === path;
  const left = isThere ? shown.size - shown.have : 0;
  return html`
    <div class="content-bar">
      <span class="muted">${isThere && (left ? `the first ${size(shown.have)} of ${size(shown.size)}` : size(shown.size))}</span>
      <${Download} path=${path} name=${name} />
    </div>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${isThere ? html`<pre class="raw">${shown.text}</pre>` : !problem && html`<p class="muted">Loading …</p>`}
    ${left > 0 && html`<button onClick=${() => more(MORE_BYTES, abort.signal)}>Show ${size(Math.min(left, MORE_BYTES))} more</button>`}`;
}
