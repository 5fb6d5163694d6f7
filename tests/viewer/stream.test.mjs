import assert from "node:assert/strict";
import { test } from "node:test";
import { FrameParser } from "../../src/runglass/server/viewer/core/frames.js";

const STREAM = 'retry: 1000\n\nid: 1\nevent: a\ndata: {"x": 1}\n\n: ping\n\nid: 2\nevent: b\ndata: one\ndata: two\n\n';

test("frames are the same wherever the stream is cut", () => {
  const whole = new FrameParser().feed(STREAM);
  assert.deepEqual(whole, [
    { event: "a", id: "1", data: '{"x": 1}' }, { event: "b", id: "2", data: "one\ntwo" },
  ]);
  for (let cut = 0; cut <= STREAM.length; cut += 1) {
    const parser = new FrameParser();
    assert.deepEqual([...parser.feed(STREAM.slice(0, cut)), ...parser.feed(STREAM.slice(cut))], whole);
  }
});

test("an id by itself is what the stream is resumed after", () => {
  const parser = new FrameParser();
  assert.deepEqual(parser.feed("retry: 1000\n\nid: 41\n\n"), []);
  assert.equal(parser.lastId, "41");
  parser.feed("id: 42\ndata: x\n\n: ping\n\n");
  assert.equal(parser.lastId, "42");
});

test("a frame that has not ended is no frame yet", () => {
  const parser = new FrameParser();
  assert.deepEqual(parser.feed("data: half"), []);
  assert.deepEqual(parser.feed(" a frame\n\n"), [{ event: "message", id: "", data: "half a frame" }]);
});
