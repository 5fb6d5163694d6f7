import assert from "node:assert/strict";
import { test } from "node:test";
import { modelOf, overridesOf, spoken, valuesIn } from "../../src/runglass/server/viewer/data/overrides.js";
import { costOf, leastCost, modelsOf, outcomeOf, remarksOf } from "../../src/runglass/server/viewer/data/run.js";

const TOTALS = { completed: 3, failed: 0, retried: 0, skipped: 0 };
const RUN = { id: "r", flowId: "f", status: "completed", totals: TOTALS };

test("a run that simply went well has no remarks", () => {
  assert.equal(outcomeOf({ ...RUN, totals: { ...TOTALS, finishReasons: { stop: 3 }, unmeteredCalls: 0 } }), "");
  assert.equal(remarksOf({ id: "r", flowId: "f", status: "running" }), "");
});

test("truncated texts and calls without usage are reported for a completed run", () => {
  const totals = { ...TOTALS, failedCostUsd: "0.5", finishReasons: { stop: 1, length: 2 }, unmeteredCalls: 1, unpricedCalls: 3 };
  assert.equal(
    outcomeOf({ ...RUN, totals }).replaceAll("\u00a0", " "),
    "$0.50 spent on failed attempts; 2 texts truncated (max_tokens); no usage reported for 1 call",
  );
});

test("the error of a run goes before its remarks", () => {
  const totals = { ...TOTALS, failed: 1, finishReasons: { length: 1 } };
  const run = { ...RUN, status: "failed", error: { code: "CODE_ERROR", message: "no" }, totals, overridden: ["ask.model"] };
  assert.equal(plain(outcomeOf(run)), "CODE_ERROR no; 1 text truncated (max_tokens); with overrides");
  assert.equal(plain(outcomeOf({ ...run, status: "completed", error: undefined, overridden: [] })), "1 failed step; 1 text truncated (max_tokens)");
});

test("a cost says whether it is all that there was, and how many calls have none", () => {
  const spent = { costUsd: "0.0031755", unmeteredCalls: 2, unpricedCalls: 1 };
  assert.equal(leastCost({ costUsd: "0.0031755" }), "$0.0031755");
  assert.equal(leastCost(spent), "≥ $0.0031755");
  assert.equal(leastCost({ ...spent, estimatedCostUsd: "0.001" }), "≈ $0.0031755");
  assert.equal(plain(costOf(spent)), "≥ $0.0031755, no usage reported for 2 calls, no known price for 1 call");
  assert.equal(plain(costOf({ unmeteredCalls: 1 })), "no usage reported for 1 call");
  assert.equal(costOf(undefined), "");
});

test("what each model cost is told where there are several", () => {
  const one = { calls: 2, tokens: { prompt: 1000, completion: 234, total: 1234 }, costUsd: "0.5" };
  const byModel = { "openai:gpt-4o-mini": one };
  assert.deepEqual(modelsOf({ ...RUN, totals: { ...TOTALS, byModel } }), []);
  const several = { ...byModel, "local:m": { calls: 1, unmeteredCalls: 1 } };
  assert.deepEqual(modelsOf({ ...RUN, totals: { ...TOTALS, byModel: several } }).map(([name, said]) => [name, plain(said)]), [
    ["openai:gpt-4o-mini", "2 calls, 1,234 tokens, $0.50"], ["local:m", "1 call, no usage reported for 1 call"],
  ]);
});

const STEPS = new Map(Object.entries({ ask: { type: "llm", model: "openai:a", settings: { top_p: 1 } }, tell: { type: "llm", model: "openai:b" } }));

test("overrides stand beside what the flow has, by name alone where values were not kept", () => {
  const event = { blockOverrides: { ask: { model: "local:m", settings: { top_p: 0 }, "settings.top_p": 2, "settings.seed": 1 } }, inputOverrides: { tell: { "a.b": [1] } } };
  const names = ["ask.model", "ask.settings", "ask.settings.top_p", "ask.settings.seed", "tell.input.a.b", "tell.prompt"];
  assert.deepEqual(overridesOf(names, new Map(valuesIn(event)), STEPS), [
    { name: "ask.model", was: "openai:a", value: "local:m" },
    { name: "ask.settings", was: '{"top_p":1}', value: '{"top_p":0}' },
    { name: "ask.settings.top_p", was: "1", value: "2" },
    { name: "ask.settings.seed", was: undefined, value: "1" },
    { name: "tell.input.a.b", was: undefined, value: "[1]" },
    { name: "tell.prompt", was: undefined, value: undefined },
  ]);
});

test("an override that replaces all settings of a step says so", () => {
  const names = ["ask.settings", "ask.settings.top_p", "ask.input.settings", "ask.model"];
  assert.deepEqual(names.map(spoken), ["ask.settings (all replaced)", ...names.slice(1)]);
});

test("the model of a step is the one that was called, else that of the override or the flow", () => {
  const called = (/** @type {string[]} */ ...names) => ({ ...TOTALS, byModel: Object.fromEntries(names.map((name) => [name, { calls: 1 }])) });
  const two = { ...RUN, version: 1, totals: called("openai:a", "openai:b") };
  assert.equal(modelOf("ask", 9, two, new Map(), STEPS), "openai:a");
  assert.equal(modelOf("ask", 9, { ...two, overridden: ["ask.model"] }, new Map([["ask.model", "local:m"]]), STEPS), "local:m");
  assert.equal(modelOf("ask", 9, { ...two, overridden: ["ask.model"] }, new Map(), STEPS), "");
  assert.equal(modelOf("gone", 9, { ...two, totals: called("x:y") }, new Map(), STEPS), "x:y");
  assert.equal(modelOf("ask", 0, { ...two, totals: called("x:y") }, new Map(), STEPS), "openai:a");
  // The draft is not what it was.
  assert.equal(modelOf("ask", 9, { ...two, version: 0, totals: called("openai:b", "x:y") }, new Map(), STEPS), "");
});

/** @param {string} text */
function plain(text) {
  return text.replaceAll("\u00a0", " ");
}
