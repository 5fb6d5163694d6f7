// Server-sent events as they come: text in pieces, whole frames out. Pure.

/** @typedef {{event: string, id: string, data: string}} Frame */

/** Takes text in pieces, gives whole frames; comments and `retry` are dropped. */
export class FrameParser {
  constructor() {
    this.rest = "";
    /** The id that came last, with an event or by itself: what the stream is to be resumed after. */
    this.lastId = "";
  }

  /** @param {string} text @returns {Frame[]} */
  feed(text) {
    const blocks = (this.rest + text).split("\n\n");
    this.rest = blocks.pop() ?? "";
    const frames = [];
    for (const block of blocks) {
      const frame = frameOf(block);
      if (frame.id) this.lastId = frame.id;
      if (frame.hasData) frames.push({ event: frame.event, id: frame.id, data: frame.data });
    }
    return frames;
  }
}

/** @param {string} block */
function frameOf(block) {
  const frame = { event: "message", id: "", data: "", hasData: false };
  const data = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const name = line.slice(0, colon);
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") data.push(value);
    else if (name === "event" || name === "id") frame[name] = value;
  }
  frame.hasData = data.length > 0;
  frame.data = data.join("\n");
  return frame;
}
