// What the callers of a run set anew, and of which model each of its steps asks: by the flow, or by an override. Pure.
import { oneLine } from "./format.js";

/** @typedef {{name: string, was?: string, value?: string}} Override texts as they are shown; undefined where not known */
/** @typedef {Record<string, Record<string, Json>>} Fields by step */

const INPUT = ".input.";

/** The values by name, as `STEP.FIELD` or `STEP.input.FIELD`, that an event `overrides_applied` tells.
 * @param {{blockOverrides?: Fields, inputOverrides?: Fields}} event @returns {[string, Json][]} */
export function valuesIn({ blockOverrides = {}, inputOverrides = {} }) {
  return [
    ...Object.entries(blockOverrides).flatMap(([step, fields]) => Object.entries(fields).map((each) => named(`${step}.`, each))),
    ...Object.entries(inputOverrides).flatMap(([step, fields]) => Object.entries(fields).map((each) => named(step + INPUT, each))),
  ];
}

/** @param {string} before @param {[string, Json]} field @returns {[string, Json]} */
function named(before, [field, value]) {
  return [before + field, value];
}

/** All overrides of a run by name, with what the flow has and what it was set to where that is known.
 * @param {string[]} names @param {Map<string, Json>} values @param {Map<string, Json>} steps as the flow has them
 * @returns {Override[]} */
export function overridesOf(names, values, steps) {
  return names.map((name) => {
    const [step, field, setting] = name.includes(INPUT) ? [] : name.split(".");
    const was = step && field ? steps.get(step)?.[field] : undefined;
    return { name, was: written(setting ? was?.[setting] : was), value: written(values.get(name)) };
  });
}

/** An override for people: one that sets all settings of a step anew says so. @param {string} name */
export function spoken(name) {
  return /^[^.]+\.settings$/.test(name) ? `${name} (all replaced)` : name;
}

/** @param {Json} value */
function written(value) {
  if (value === undefined) return undefined;
  return oneLine(typeof value === "string" ? value : JSON.stringify(value), 2000);
}

/** The model that a step asks, which is sure where its tokens can be of one alone; empty where nobody knows.
 * @param {string} stepId @param {number} tokens that it has used @param {import("./run.js").Run} run
 * @param {Map<string, Json>} values of overrides @param {Map<string, Json>} steps as the flow has them */
export function modelOf(stepId, tokens, run, values, steps) {
  const asked = Object.keys(run.totals?.byModel ?? {});
  if (tokens > 0 && asked.length === 1) return asked[0];
  const name = `${stepId}.model`;
  const isOverridden = run.overridden?.includes(name);
  const model = isOverridden ? values.get(name) : steps.get(stepId)?.model;
  // A draft may say something else by now.
  const isSure = run.version !== 0 || isOverridden || asked.includes(model);
  return typeof model === "string" && isSure ? model : "";
}
