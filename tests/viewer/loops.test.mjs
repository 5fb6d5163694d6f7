import assert from "node:assert/strict";
import { test } from "node:test";
import { Rows } from "../../src/runglass/server/viewer/data/columns.js";
import { LiveRows } from "../../src/runglass/server/viewer/data/live.js";
import { LoopTotals } from "../../src/runglass/server/viewer/data/loops.js";
import { stepsExpected } from "../../src/runglass/server/viewer/data/run.js";
import { Shape } from "../../src/runglass/server/viewer/data/shape.js";

const AT = "1970-01-01T00:00:00Z";
const RUN = { id: "r", flowId: "f", status: "running" };

/** A run that takes events in, of a loop in a loop. */
class Watched {
  constructor() {
    const shape = new Shape();
    shape.learnTree([{ type: "loop", id: "outer", steps: [{ type: "loop", id: "inner", steps: [{ type: "code", id: "one" }] }] }]);
    this.rows = new Rows();
    this.live = new LiveRows(this.rows, shape, 0);
    this.loops = new LoopTotals();
  }

  /** @param {string} eventType @param {string} stepId @param {number[]} loopPath @param {object} more */
  event(eventType, stepId, loopPath, more = {}) {
    const event = { eventType, seq: 1, at: AT, stepId, attempt: 1, ...(loopPath.length && { loopPath }), ...more };
    this.live.apply(event);
    this.loops.apply(event);
  }

  /** @param {string} name how far each loop of the name is */
  far(name) {
    return [...Array(this.rows.count).keys()]
      .filter((row) => this.rows.nameOf(row) === name).map((row) => this.loops.of(this.rows, row)).filter(Boolean);
  }
}

test("of each loop that goes on it is known how many of its iterations have begun", () => {
  const run = new Watched();
  run.event("loop_started", "outer", [], { iterations: 40 });
  run.event("loop_started", "inner", [0], { iterations: 2 });
  run.event("step_started", "one", [0, 0]);
  assert.deepEqual([run.far("outer"), run.far("inner")], [[{ begun: 1, total: 40 }], [{ begun: 1, total: 2 }]]);
  run.event("step_started", "one", [0, 1]);
  run.event("loop_completed", "inner", [0]);
  run.event("loop_started", "inner", [17], { iterations: 5 });
  run.event("step_started", "one", [17, 2]);
  assert.deepEqual([run.far("outer"), run.far("inner")], [[{ begun: 18, total: 40 }], [{ begun: 3, total: 5 }]]);
});

test("a summary tells of loops that began before anybody looked", () => {
  const run = new Watched();
  run.loops.learn(/** @type {Json} */ ({ ...RUN, loops: { outer: 40 } }));
  run.event("step_started", "one", [3, 0]);
  assert.deepEqual(run.far("outer"), [{ begun: 4, total: 40 }]);
  run.event("loop_completed", "outer", []);
  assert.deepEqual(run.far("outer"), []);
});

test("a loop that has had all of its iterations and does not go on needs no total", () => {
  const run = new Watched();
  run.event("loop_started", "outer", [], { iterations: 1 });
  run.event("step_started", "one", [0, 0]);
  assert.deepEqual(run.far("outer"), [{ begun: 1, total: 1 }]);
  run.event("step_error", "one", [0, 0]);
  assert.deepEqual(run.far("outer"), []);
});

test("how many steps a run will have, as far as anybody can tell", () => {
  const totals = { completed: 18, failed: 0, retried: 3, skipped: 2 };
  assert.equal(stepsExpected({ ...RUN, totals, stepCount: 3, expectedSteps: 42 }), 40);
  assert.equal(stepsExpected({ ...RUN, totals, stepCount: 30 }), 28);
  assert.equal(stepsExpected({ ...RUN, stepCount: 3 }), 3);
  assert.equal(stepsExpected({ ...RUN, totals, stepCount: 3 }), undefined, "a run from before loops told");
  assert.equal(stepsExpected({ ...RUN, totals, status: "failed", expectedSteps: 42 }), undefined);
});
