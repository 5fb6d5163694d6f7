import assert from "node:assert/strict";
import { test } from "node:test";
import { outcomeOf, remarksOf } from "../../src/runglass/server/viewer/data/run.js";

const TOTALS = { completed: 3, failed: 0, retried: 0, skipped: 0 };
const RUN = { id: "r", flowId: "f", status: "completed", totals: TOTALS };

test("a run that simply went well has no remarks", () => {
  assert.equal(outcomeOf({ ...RUN, totals: { ...TOTALS, finishReasons: { stop: 3 }, unmeteredCalls: 0 } }), "");
  assert.equal(remarksOf({ id: "r", flowId: "f", status: "running" }), "");
});

test("texts that were cut, and calls without usage, are told of a run that went well", () => {
  const totals = { ...TOTALS, failedCostUsd: "0.5", finishReasons: { stop: 1, length: 2 }, unmeteredCalls: 1 };
  assert.equal(
    outcomeOf({ ...RUN, totals }).replaceAll("\u00a0", " "),
    "$0.50 went into failed attempts; 2 texts cut at the token limit; 1 model call without usage told",
  );
});

test("the error of a run goes before its remarks", () => {
  const totals = { ...TOTALS, finishReasons: { length: 1 } };
  assert.equal(outcomeOf({ ...RUN, status: "failed", error: { code: "CODE_ERROR", message: "no" }, totals }), "CODE_ERROR no");
});
