// Content that is too large to be read unasked: its beginning as text, more of it, or all of it as a file.
import { html, useEffect, useMemo, useState } from "../core/html.js";
import { errorOf, request } from "../core/api.js";
import { size } from "../data/format.js";
import { Download } from "../parts/download.js";

export const FIRST_BYTES = 65_536;
const MORE_BYTES = 4 * FIRST_BYTES;
const CHANGED = 200;
/** The answer where there is another text by now: all of it, which nobody asked for. */

/** Text that is read by ranges of bytes, as much as somebody wants to see. */
class RangeReader {
  text = "";
  /** Bytes that have come, and bytes that there are. */
  have = 0;
  size = 0;
  tag = "";
  decoder = new TextDecoder();

  /** @param {string} path below `/api/v1` */
  constructor(path) {
    this.path = path;
  }

  /** Reads so many bytes more. Throws ApiError. @param {number} bytes @param {AbortSignal} abort @returns {Promise<void>} */
  async more(bytes, abort) {
    const ours = new AbortController();
    const headers = { Range: `bytes=${this.have}-${this.have + bytes - 1}`, ...(this.tag ? { "If-Range": this.tag } : {}) };
    const answer = await request(this.path, { headers, signal: AbortSignal.any([abort, ours.signal]) });
    if (answer.status === CHANGED && this.have) {
      ours.abort();
      Object.assign(this, { text: "", have: 0, tag: "", decoder: new TextDecoder() });
      return this.more(bytes, abort);
    }
    const body = await answer.arrayBuffer();
    this.have += body.byteLength;
    this.size = Number(answer.headers.get("content-range")?.split("/")[1] ?? this.have);
    this.tag = answer.headers.get("etag") ?? "";
    this.text += this.decoder.decode(body, { stream: true });
  }
}

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
