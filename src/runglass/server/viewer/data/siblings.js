// The other attempts of a step, and the same step in other iterations: what it can be compared with. Pure.
import { ATTEMPT, COMPLETED, FAILED, ITERATION, NONE, RETRIED } from "./columns.js";
import { addressOf, rowAt } from "./address.js";

/** @typedef {import("./columns.js").Rows} Rows */
/** @typedef {{row: number, name: string, said: string}} Sibling `name` is what addresses call it */

const MOST_EACH_WAY = 20;

/** The row that ‹ or › leads to, -1 where there is none: of an attempt the one before or after, of what is in a loop
 * the same in the next iteration that has it. @param {Rows} rows @param {number} row @param {"prev"|"next"} way */
export function beside(rows, row, way) {
  if (rows.isRecorded) return NONE;
  if (rows.kind[row] === ATTEMPT || rows.kind[row] === ITERATION) return rows[way][row];
  const inner = [];
  let at = row;
  for (; at !== NONE && rows.kind[at] !== ITERATION; at = rows.parent[at]) inner.unshift(at);
  if (at === NONE) return NONE;
  for (at = rows[way][at]; at !== NONE; at = rows[way][at]) {
    let found = at;
    for (const each of inner) {
      if (found !== NONE) found = rows.find(found, (other) => rows.kind[other] === rows.kind[each] && rows.name[other] === rows.name[each]);
    }
    if (found !== NONE) return found;
  }
  return NONE;
}

/** What a leaf can be compared with: the other attempts, newest first, then the step in iterations, nearest first.
 * @param {Rows} rows @param {number} row @returns {Sibling[]} */
export function siblingsOf(rows, row) {
  const step = rows.kind[row] === ATTEMPT ? rows.parent[row] : row;
  if (rows.isRecorded) return [];
  const found = [];
  for (let at = rows.last[step]; at !== NONE; at = rows.prev[at]) if (at !== row) found.push(siblingAt(rows, at));
  let [before, after] = [step, step];
  for (let far = 0; far < MOST_EACH_WAY; far += 1) {
    if (before !== NONE) before = beside(rows, before, "prev");
    if (after !== NONE) after = beside(rows, after, "next");
    for (const at of [before, after]) if (at !== NONE) found.push(siblingAt(rows, at));
  }
  return found;
}

/** @param {Rows} rows @param {number} row @returns {Sibling} */
function siblingAt(rows, row) {
  if (rows.kind[row] === ATTEMPT) return { row, name: `attempt-${rows.attempt[row]}`, said: `attempt ${rows.attempt[row]}` };
  const iteration = addressOf(rows, row).iteration.join(",");
  return { row, name: iteration, said: `[${iteration.replaceAll(",", ", ")}]` };
}

/** The sibling that an address names, be it near or far; else the one that says most: what failed beside what went well.
 * @param {Rows} rows @param {number} row @param {Sibling[]} siblings @param {string} name @returns {Sibling|undefined} */
export function chosenSibling(rows, row, siblings, name) {
  const near = siblings.find((each) => each.name === name);
  if (near) return near;
  if (/^\d{1,9}(,\d{1,9})*$/.test(name)) {
    const iteration = name.split(",").map(Number);
    const { step } = addressOf(rows, row);
    const far = rowAt(rows, { step, iteration, attempt: 0 });
    const there = far === NONE ? null : addressOf(rows, far);
    if (far !== row && there?.step === step && there.iteration.join(",") === name) return siblingAt(rows, far);
  }
  const hasFailed = rows.status[row] === FAILED || rows.status[row] === RETRIED;
  return (hasFailed ? siblings.find((each) => rows.status[each.row] === COMPLETED) : undefined) ?? siblings[0];
}
