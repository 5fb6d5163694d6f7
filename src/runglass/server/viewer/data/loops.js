// How many iterations a loop will have, or would have had, where events or the run's summary tell. Pure.
import { ITERATION, NONE } from "./columns.js";
import { addressOf } from "./address.js";

/** @typedef {import("./columns.js").Rows} Rows */

/** Of loops that have begun and not completed. */
export class LoopTotals {
  constructor() {
    /** Iterations by step and the iterations around it. @type {Map<string, number>} */
    this.known = new Map();
  }

  /** Takes in what the summary says of loops that are in no other. @param {import("./run.js").Run} run */
  learn(run) {
    for (const [stepId, iterations] of Object.entries(run.loops ?? {})) this.known.set(keyOf(stepId, []), iterations);
  }

  /** @param {import("./live.js").RunEvent} event */
  apply(event) {
    const key = keyOf(event.stepId ?? "", event.loopPath ?? []);
    if (event.eventType === "loop_started") this.known.set(key, event.iterations ?? 0);
    else if (event.eventType === "loop_completed") this.known.delete(key);
  }

  /** How far the loop of a row is; undefined where nobody knows, or where it has had all of its iterations.
   * @param {Rows} rows @param {number} row */
  of(rows, row) {
    const last = rows.last[row];
    if (last === NONE || rows.kind[last] !== ITERATION) return undefined;
    const total = this.known.get(keyOf(rows.nameOf(row), addressOf(rows, row).iteration));
    // Iterations begin in the order of their numbers.
    const begun = rows.index[last] + 1;
    return total === undefined || (begun >= total && !rows.isGoing(row)) ? undefined : { begun, total };
  }
}

/** What names a step in one iteration. @param {string} stepId @param {number[]} path */
export function keyOf(stepId, path) {
  return `${stepId} ${path.join(",")}`;
}
