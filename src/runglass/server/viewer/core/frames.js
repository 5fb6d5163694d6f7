// Server-sent events as they come: text in pieces, whole frames out. Pure.

/** @typedef {{event: string, id: string, data: string}} Frame */

/** Takes text in pieces, gives whole frames; comments and `retry` are dropped. */
export class FrameParser {
  constructor() {
    this.rest = "";
  }

  /** @param {string} text @returns {Frame[]} */
  feed(text) {
    const blocks = (this.rest + text).split("\n\n");
    this.rest = blocks.pop() ?? "";
    return blocks.map(frameOf).filter((frame) => frame !== null);
  }
}

/** @param {string} block @returns {Frame|null} */
function frameOf(block) {
  const frame = { event: "message", id: "", data: "" };
  const data = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const name = line.slice(0, colon);
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") data.push(value);
    else if (name === "event" || name === "id") frame[name] = value;
  }
  if (!data.length) return null;
  frame.data = data.join("\n");
  return frame;
}
