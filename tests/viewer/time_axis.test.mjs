import assert from "node:assert/strict";
import { test } from "node:test";
import { Folding, TimeAxis, within, zoomed } from "../../src/runglass/server/viewer/data/time_axis.js";

const WHOLE = { from: 0, to: 1000 };
const IDLE = new Folding([{ from: 100, to: 500 }, { from: 700, to: 900 }], 10);

test("each place is of one moment, with idle times folded too", () => {
  for (const folding of [new Folding(), IDLE]) {
    const axis = new TimeAxis(WHOLE, 640, folding);
    let before = -1;
    for (let ms = 0; ms <= 1000; ms += 7) {
      assert.ok(axis.x(ms) > before);
      before = axis.x(ms);
      assert.ok(Math.abs(axis.ms(axis.x(ms)) - ms) < 1e-6);
    }
    assert.ok(Math.abs(axis.x(1000) - 640) < 1e-6);
  }
});

test("an idle time takes as much room as it is left", () => {
  assert.equal(IDLE.fold(500) - IDLE.fold(100), 10);
  assert.equal(IDLE.fold(1000), 1000 - 390 - 190);
});

test("ticks are round, in order and apart", () => {
  for (const to of [3, 40, 999, 12_345, 3_600_000, 1e9]) {
    const ticks = new TimeAxis({ from: 0, to }, 800, new Folding()).ticks();
    assert.ok(ticks.length >= 2 && ticks.length <= 11, `${to}: ${ticks.length}`);
    for (let at = 1; at < ticks.length; at += 1) assert.ok(ticks[at].x - ticks[at - 1].x >= 48);
  }
});

test("zooming keeps the moment under the pointer, and stays within the whole", () => {
  const nearer = zoomed(WHOLE, WHOLE, 250, 0.5);
  assert.equal(nearer.to - nearer.from, 500);
  assert.equal((250 - nearer.from) / 500, 0.25);
  assert.deepEqual(zoomed(nearer, WHOLE, 250, 100), WHOLE);
  const nearest = zoomed(WHOLE, WHOLE, 500, 1e-9);
  assert.equal(nearest.to - nearest.from, 1);
  assert.deepEqual(within({ from: -50, to: 50 }, WHOLE), { from: 0, to: 100 });
  assert.deepEqual(within({ from: 990, to: 1090 }, WHOLE), { from: 900, to: 1000 });
});
