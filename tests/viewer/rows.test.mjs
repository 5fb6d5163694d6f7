import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { addressIn, addressOf, pythonOf, queryOf, rowAt, titleOf } from "../../src/runglass/server/viewer/data/address.js";
import { FAILED, ITERATION, KINDS, NONE, RETRIED, Rows, STATUSES, STEP } from "../../src/runglass/server/viewer/data/columns.js";
import { densityOf, idleTimes } from "../../src/runglass/server/viewer/data/density.js";
import { keep } from "../../src/runglass/server/viewer/data/filter.js";
import { LiveRows } from "../../src/runglass/server/viewer/data/live.js";
import { Shape } from "../../src/runglass/server/viewer/data/shape.js";
import { View } from "../../src/runglass/server/viewer/data/view.js";

const RUNS = ["failed", "retried", "attempts"];

/** What a server answered about a run: its outline, its events, and the tree of its flow. @param {string} name */
function recorded(name) {
  return JSON.parse(readFileSync(new URL(`runs/${name}.json`, import.meta.url), "utf8"));
}

/** @param {import("../../src/runglass/server/viewer/data/columns.js").OutlinePage} outline */
function rowsOf(outline) {
  const rows = new Rows();
  rows.addPage(outline);
  return rows;
}

/** The rows in the order of the tree, as what is to be seen of each. @param {Rows} rows */
function told(rows) {
  const lines = [];
  for (let row = rows.rootFirst; row !== NONE; row = rows.following(row)) {
    lines.push([
      rows.depth[row], KINDS[rows.kind[row]], rows.nameOf(row), rows.index[row], rows.attempt[row], rows.attempts[row],
      STATUSES[rows.status[row]], rows.start[row], rows.end[row], rows.tokens[row], rows.cost[row].toFixed(12),
    ].join(" "));
  }
  return lines;
}

for (const name of RUNS) {
  test(`pages of any size are the same rows (${name})`, () => {
    const { outline } = recorded(name);
    for (const size of [1, 2, 7, 50]) {
      const rows = new Rows();
      for (let first = 0; first < outline.rowCount; first += size) {
        const columns = Object.fromEntries(
          Object.entries(outline.columns).map(([column, values]) => [column, values.slice(first, first + size)]));
        rows.addPage({ ...outline, first, columns });
      }
      assert.deepEqual(told(rows), told(rowsOf(outline)));
    }
  });

  test(`the events of a run make the rows of its outline (${name})`, () => {
    const { outline, events, steps, run } = recorded(name);
    const rows = new Rows();
    const shape = new Shape();
    shape.learnTree(steps);
    const live = new LiveRows(rows, shape, Date.parse(run.startedAt));
    for (const event of events) assert.ok(live.apply(event), event.stepId);
    // An event says when it was recorded, and an outline when the attempt ended: they differ by what a commit takes.
    const rough = (/** @type {string[]} */ lines) => lines.map((line) => line.split(" ").filter((_, at) => at !== 7 && at !== 8).join(" "));
    assert.deepEqual(rough(told(rows)), rough(told(rowsOf(outline))));
    assert.equal(rows.open.subarray(0, rows.count).reduce((sum, each) => sum + each, 0), 0);
  });

  test(`an outline in the middle and the events after it make the same (${name})`, () => {
    const { outline, events, steps, run } = recorded(name);
    const shape = new Shape();
    shape.learnTree(steps);
    const whole = new LiveRows(new Rows(), shape, Date.parse(run.startedAt));
    for (const event of events) whole.apply(event);
    for (const cut of [10, Math.floor(events.length / 2), events.length - 4]) {
      const half = new LiveRows(new Rows(), shape, Date.parse(run.startedAt));
      for (const event of events.slice(0, cut)) half.apply(event);
      // A second reader has the rows, and nothing of how they came about.
      const second = new LiveRows(half.rows, shape, Date.parse(run.startedAt));
      for (const event of events.slice(cut)) second.apply(event);
      assert.deepEqual(told(half.rows), told(whole.rows));
    }
    assert.ok(outline.rowCount > 0);
  });

  test(`each row is found by its address, in a query too (${name})`, () => {
    const rows = rowsOf(recorded(name).outline);
    for (let row = 0; row < rows.count; row += 1) {
      const address = addressOf(rows, row);
      assert.equal(rowAt(rows, address), row);
      const query = new URLSearchParams();
      for (const [key, value] of Object.entries(queryOf(address))) if (value !== null) query.set(key, String(value));
      assert.deepEqual(addressIn(query), address);
    }
  });
}

const LOOP = { type: "loop", id: "each", steps: [{ type: "code", id: "one" }] };

/** The rows of a run of a flow with these steps, and how they take in what happens to one. @param {...Json} steps */
function watched(...steps) {
  const shape = new Shape();
  shape.learnTree(steps);
  return watchedOn(new Rows(), shape);
}

/** A further reader, who has the rows and nothing of how they came about. @param {Rows} rows @param {Shape} shape */
function watchedOn(rows, shape) {
  const live = new LiveRows(rows, shape, 0);
  const apply = (/** @type {string} */ eventType, stepId = "", /** @type {object} */ more = {}) =>
    live.apply({ eventType, seq: 1, at: "1970-01-01T00:00:00Z", stepId, attempt: 1, ...more });
  return { live, rows, shape, apply };
}

/** @param {Rows} rows */
function statuses(rows) {
  return [...rows.status.subarray(0, rows.count)].map((status) => STATUSES[status]);
}

test("an event of a step that nobody knows is not taken", () => {
  const { rows, apply } = watched();
  assert.ok(!apply("step_started", "new"));
  assert.equal(rows.count, 0);
});

test("rows stay as they were when their columns have to grow", () => {
  const rows = new Rows();
  for (let at = 0; at < 3000; at += 1) rows.insert(NONE, STEP, `step ${at}`, at, (row) => row);
  assert.deepEqual([rows.count, rows.nameOf(0), rows.nameOf(2999)], [3000, "step 0", "step 2999"]);
  for (let row = 0; row < rows.count; row += 1) assert.equal(rows.prev[row], row - 1);
  for (const column of Object.values(rows)) if (ArrayBuffer.isView(column)) assert.ok("length" in column && column.length === rows.capacity);
});

test("what still runs or waits when the run is cancelled has ended with it, and has used what it had", () => {
  const { live, rows, apply } = watched(LOOP);
  for (const index of [0, 1]) apply("step_started", "one", { loopPath: [index] });
  live.spend(2, 10, 0.5);
  rows.status[2] = STATUSES.indexOf("waiting");
  apply("flow_cancelled", "", { at: "1970-01-01T00:00:02Z" });
  assert.deepEqual(statuses(rows), Array(rows.count).fill("cancelled"));
  assert.deepEqual([...rows.end.subarray(0, rows.count)], Array(rows.count).fill(2000));
  assert.deepEqual([rows.open[0], rows.tokens[2]], [0, 10]);
});

test("tokens and cost of a call count once, for whoever comes between two calls as well", () => {
  const { rows, shape, apply } = watched(LOOP);
  const used = () => [...Array(rows.count).keys()].map((row) => [rows.tokens[row], rows.cost[row]]);
  apply("step_started", "one", { loopPath: [0] });
  apply("step_model_call", "one", { loopPath: [0], modelCall: { tokens: { total: 10 }, costUsd: "0.5" } });
  assert.deepEqual(used(), [[10, 0.5], [10, 0.5], [10, 0.5]]);
  const later = watchedOn(rows, shape);
  later.apply("step_model_call", "one", { loopPath: [0], modelCall: { tokens: { total: 7 }, finishReason: "length" } });
  later.apply("step_completed", "one", { loopPath: [0], tokens: { total: 17 }, costUsd: "0.5" });
  assert.deepEqual(used(), [[17, 0.5], [17, 0.5], [17, 0.5]]);
  assert.deepEqual([...rows.cut], [2]);
});

test("a step that was to be tried again has failed for good when the run is cancelled", () => {
  const { rows, apply } = watched(LOOP);
  for (const attempt of [1, 2]) for (const type of ["step_started", "step_retrying"]) apply(type, "one", { attempt, loopPath: [0] });
  apply("flow_cancelled");
  assert.deepEqual(statuses(rows), ["failed", "failed", "failed", "retried", "failed"]);
});

test("an outline that is made between two attempts and the events after it make the same rows", () => {
  const [made, before] = ["step_error", "step_retrying"].map((first) => {
    const { rows, shape, apply } = watched(LOOP);
    apply(first, "one", { loopPath: [0] });
    const later = watchedOn(rows, shape);
    for (const type of ["step_started", "step_completed"]) later.apply(type, "one", { attempt: 2, loopPath: [0] });
    return told(rows);
  });
  assert.deepEqual(made, before);
});

test("a branch that is cut off as the one beside it failed is cancelled, and what is around both has failed", () => {
  const branches = { left: [{ type: "code", id: "one" }], right: [{ type: "code", id: "two" }] };
  const { rows, apply } = watched({ type: "parallel", id: "both", branches });
  for (const step of ["one", "two"]) apply("step_started", step);
  apply("step_error", "two", { error: { code: "CODE_ERROR" } });
  apply("step_error", "one", { error: { code: "CANCELLED" } });
  const found = told(rows).map((line) => line.split(" ")).map((words) => `${words[2]} ${words[6]}`);
  assert.deepEqual(found, ["both failed", "left cancelled", "one cancelled", "right failed", "two failed"]);
});

test("a text that was cut is found by a word, and so it is when its attempt gets a row of its own", () => {
  const { rows, apply } = watched({ type: "llm", id: "ask" }, { type: "llm", id: "tell" });
  apply("step_started", "ask");
  apply("step_model_call", "ask", { modelCall: { finishReason: "length" } });
  apply("step_retrying", "ask");
  apply("step_started", "ask", { attempt: 2 });
  apply("step_model_call", "ask", { attempt: 2, modelCall: { finishReason: "stop" } });
  apply("step_started", "tell");
  apply("step_model_call", "tell", { modelCall: { finishReason: "tool_call" } });
  const { kept, matches } = keep(rows, { text: "truncated", onlyFailed: false, leastMs: 0 }, 1000);
  assert.equal(matches, 1);
  const found = [...rows.cut];
  assert.deepEqual(found.map((row) => [rows.nameOf(row), rows.attempt[row], kept[row]]), [["ask", 1, 1]]);
});

test("iterations that come in any order stand by their number", () => {
  const { rows, apply } = watched(LOOP);
  for (const index of [3, 0, 2, 1, 4]) apply("step_started", "one", { loopPath: [index] });
  const order = [];
  for (let row = rows.first[0]; row !== NONE; row = rows.next[row]) order.push(rows.index[row]);
  assert.deepEqual(order, [0, 1, 2, 3, 4]);
});

test("a long loop is as bad as the worst of its iterations, one after the other or at once", () => {
  for (const atOnce of [1, 4]) {
    const { rows, apply: applyTo } = watched(LOOP);
    const apply = (/** @type {string} */ type, /** @type {number} */ index, attempt = 1) => applyTo(type, "one", { loopPath: [index], attempt });
    for (let first = 0; first < 400; first += atOnce) {
      for (let index = first; index < first + atOnce; index += 1) apply("step_started", index);
      for (let index = first; index < first + atOnce; index += 1) {
        if (index === 300) {
          apply("step_retrying", index);
          apply("step_started", index, 2);
        }
        apply("step_completed", index, index === 300 ? 2 : 1);
      }
      assert.equal(STATUSES[rows.status[0]], first + atOnce > 300 ? "retried" : "completed");
    }
    apply("step_started", 400);
    assert.equal(STATUSES[rows.status[0]], "running");
    apply("step_error", 400);
    assert.equal(STATUSES[rows.status[0]], "failed");
  }
});

test("an address that is not there leads to what is around it", () => {
  const rows = rowsOf(recorded("failed").outline);
  const around = rowAt(rows, { step: "each/check", iteration: [99], attempt: 0 });
  assert.equal(rows.nameOf(around), "each");
  assert.equal(rowAt(rows, { step: "nothing", iteration: [], attempt: 0 }), NONE);
  assert.equal(addressIn(new URLSearchParams("step=a&iteration=x,3&attempt=-1"))?.iteration[0], 3);
});

test("a step is found by its id alone, wherever it stands", () => {
  const rows = rowsOf(recorded("failed").outline);
  const found = rowAt(rows, { step: "check", iteration: [20], attempt: 2 });
  assert.equal(addressOf(rows, found).step, "each/check");
  assert.deepEqual([addressOf(rows, found).iteration, rows.attempt[found]], [[20], 2]);
});

test("a failed attempt has a title and a line of Python", () => {
  const rows = rowsOf(recorded("failed").outline);
  const failed = rows.status.subarray(0, rows.count).lastIndexOf(FAILED);
  assert.equal(titleOf(rows, failed), "check [20] attempt 2 of 2");
  assert.equal(pythonOf(rows, failed), 'run.step_trace("check", attempt=2, loop_index=20)');
});

test("iterations that went well are one line, and those that did not have their own", () => {
  const rows = rowsOf(recorded("failed").outline);
  const view = new View(rows);
  view.rebuild();
  const shown = [...view.entries.subarray(0, view.count)].map((entry) => {
    const group = view.groupOf(entry);
    return group ? `${rows.index[group.first]}-${rows.index[group.last]}` : rows.kind[entry] === ITERATION ? `${rows.index[entry]}` : "";
  }).filter(Boolean);
  assert.deepEqual(shown, ["0", "1", "2", "3-19", "20", "21"]);
});

test("what is in a group or folded is found by its line, and revealed where it is asked for", () => {
  const rows = rowsOf(recorded("failed").outline);
  const view = new View(rows);
  view.rebuild();
  const row = rowAt(rows, { step: "each/check", iteration: [7], attempt: 0 });
  assert.ok(view.groupOf(view.entries[view.entryOf(row)]));
  view.reveal(row);
  view.rebuild();
  assert.equal(view.entries[view.entryOf(row)], row);
});

test("all levels show all rows, in the order of the tree", () => {
  const rows = rowsOf(recorded("failed").outline);
  const view = new View(rows);
  view.setLevel(Infinity);
  view.rebuild();
  assert.deepEqual([...view.entries.subarray(0, view.count)], [...Array(rows.count).keys()]);
});

test("a filter keeps what matches, with all that it is inside of", () => {
  const rows = rowsOf(recorded("failed").outline);
  const found = (/** @type {Partial<import("../../src/runglass/server/viewer/data/filter.js").Filter>} */ filter) =>
    keep(rows, { text: "", onlyFailed: false, leastMs: 0, ...filter }, 1000);
  const failed = found({ onlyFailed: true });
  assert.ok(failed.matches > 0);
  for (let row = 0; row < rows.count; row += 1) {
    if (failed.kept[row] && rows.parent[row] !== NONE) assert.ok(failed.kept[rows.parent[row]]);
    if (failed.kept[row] === 1) assert.equal(rows.status[row], FAILED);
  }
  assert.equal(found({ text: "nothing" }).matches, 0);
  assert.equal(found({ text: "check [20] retried" }).matches, 1);
  assert.ok(found({ leastMs: 25 }).matches < found({ leastMs: 1 }).matches);
});

test("a step may be called as every object calls something", () => {
  const rows = new Rows();
  rows.insert(NONE, STEP, "constructor", 0, () => 0);
  assert.equal(keep(rows, { text: "constructor", onlyFailed: false, leastMs: 0 }, 1000).matches, 1);
});

test("a failure is in the strip however short it was, and idle times are known", () => {
  const rows = rowsOf(recorded("failed").outline);
  const density = densityOf(rows, 450, 10);
  assert.equal(density.worst[9], FAILED);
  assert.ok(density.worst.includes(RETRIED));
  assert.ok(density.most >= 1);
  const idle = idleTimes(densityOf(rows, 450, 450), 450);
  assert.ok(idle.some((span) => span.to - span.from > 100));
});
