// Text at an address that is read by ranges of bytes, as much as somebody wants to see.
import { request } from "./api.js";

const CHANGED = 200;
/** The answer where there is another text by now: all of it, which nobody asked for. */

export class RangeReader {
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
