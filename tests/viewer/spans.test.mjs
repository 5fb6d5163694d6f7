import assert from "node:assert/strict";
import { test } from "node:test";
import { addressOf, isLeaf, pythonOf, rowAt, titleOf } from "../../src/runglass/server/viewer/data/address.js";
import { KINDS, NONE, Rows, STATUSES } from "../../src/runglass/server/viewer/data/columns.js";
import { densityOf } from "../../src/runglass/server/viewer/data/density.js";
import { keep } from "../../src/runglass/server/viewer/data/filter.js";
import { LiveRows } from "../../src/runglass/server/viewer/data/live.js";
import { siblingsOf } from "../../src/runglass/server/viewer/data/siblings.js";
import { Shape } from "../../src/runglass/server/viewer/data/shape.js";
import { View } from "../../src/runglass/server/viewer/data/view.js";

/** Name, step id, number, parent, kind, status, start, end and position of each row. @type {[string, string, number, number, string, string, number, number, number][]} */
const SPANS = [
  ["answer ticket", "answer_ticket", 0, NONE, "agent", "completed", 0, 100, 2],
  ["chat gpt", "chat_gpt", 1, 0, "llm", "failed", 10, 20, 3],
  ["chat gpt", "chat_gpt", 0, 0, "llm", "completed", 30, 150, 1],
  ["not received", "", NONE, NONE, "placeholder", "running", 40, -1, 0],
  ["search", "search", 0, 3, "tool", "running", 40, -1, 4],
];

/** Pages of so many rows, as a server has them. @param {number} size */
function rowsOf(size = 10) {
  const rows = new Rows();
  for (let first = 0; first < SPANS.length; first += size) {
    const page = SPANS.slice(first, first + size);
    const names = [...new Set(page.map(([name]) => name))];
    const column = (/** @type {(span: typeof SPANS[0]) => number} */ of) => page.map(of);
    const ones = column(() => 1);
    rows.addPage({
      seq: 4, rowCount: SPANS.length, first, names, kinds: KINDS, statuses: STATUSES, cut: [],
      recorded: {
        stepIds: names.map((name) => page.find((span) => span[0] === name)?.[1] ?? ""), models: names.map(() => null),
        retryOf: first === 0 && size > 2 ? [[2, 1]] : [],
      },
      columns: {
        parent: column((span) => span[3]), kind: column((span) => KINDS.indexOf(span[4])), name: column((span) => names.indexOf(span[0])),
        index: column((span) => span[2]), attempt: ones, attempts: ones, position: column((span) => span[8]),
        status: column((span) => STATUSES.indexOf(span[5])), start: column((span) => span[6]), end: column((span) => span[7]),
        tokens: column(() => 0), cost: page.map(() => null),
      },
    });
  }
  return rows;
}

test("names of a page are those of its rows, however the rows are cut into pages", () => {
  for (const size of [1, 2, 10]) {
    const rows = rowsOf(size);
    assert.deepEqual([...SPANS.keys()].map((row) => rows.nameOf(row)), SPANS.map(([name]) => name));
    assert.deepEqual([...SPANS.keys()].map((row) => rows.stepIdOf(row)), SPANS.map(([, stepId]) => stepId));
  }
});

test("a span is addressed by its step and number, wherever it stands in the tree", () => {
  const rows = rowsOf();
  for (const row of [0, 1, 2, 4]) {
    assert.equal(rowAt(rows, addressOf(rows, row)), row);
    assert.ok(isLeaf(rows, row));
  }
  assert.deepEqual(addressOf(rows, 1), { step: "chat_gpt", iteration: [1], attempt: 0 });
  assert.equal(titleOf(rows, 1), "chat gpt [1]");
  assert.equal(pythonOf(rows, 1), 'run.step_trace("chat_gpt", attempt=1, loop_index=1)');
  assert.equal(isLeaf(rows, 3), false);
  assert.deepEqual(siblingsOf(rows, 2), []);
});

test("a span has its own state and times, and may end after the one that it is in", () => {
  const rows = rowsOf();
  assert.equal(rows.latest(), 150);
  assert.ok(rows.goesOn());
  // Those with others inside are not counted twice.
  assert.equal(densityOf(rows, 200, 20).most, 2);
  assert.deepEqual([...rows.retryOf], [[2, 1]]);
});

test("all is open at first, and a filter keeps what is around a match and knows kinds", () => {
  const rows = rowsOf();
  const view = new View(rows);
  view.rebuild();
  assert.deepEqual([...view.entries.subarray(0, view.count)], [0, 1, 2, 3, 4]);
  const kept = (/** @type {string} */ text) => [...keep(rows, { text, onlyFailed: false, leastMs: 0 }, 200).kept];
  assert.deepEqual(kept("tool"), [0, 0, 0, 2, 1]);
  assert.deepEqual(kept("failed"), [2, 1, 0, 0, 0]);
});

test("what an event tells of a span is asked of the server, which has the sums", () => {
  const live = new LiveRows(rowsOf(), new Shape(), 0);
  assert.equal(live.apply({ eventType: "step_recorded", seq: 5, at: "2026-01-01T00:00:00Z", stepId: "x", loopPath: [0] }), false);
});
