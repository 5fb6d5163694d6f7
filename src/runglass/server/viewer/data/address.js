// What a row of a run is called: in addresses, in the API, and in a line of Python. Pure.
import { ATTEMPT, ITERATION, NONE, STEP } from "./columns.js";

/** @typedef {import("./columns.js").Rows} Rows */
/** @typedef {{step: string, iteration: number[], attempt: number}} Address `attempt` 0 where none is meant */

/** The parts of the panel, of which an address names one. */
export const TABS = ["overview", "input", "output", "error", "chat", "raw", "compare"];

/** The address of a row. @param {Rows} rows @param {number} row @returns {Address} */
export function addressOf(rows, row) {
  // A span stays what it is called wherever its tree puts it; one that was not received is called nothing.
  if (rows.isRecorded) return { step: rows.stepIdOf(row), iteration: rows.index[row] < 0 ? [] : [rows.index[row]], attempt: 0 };
  const step = [];
  const iteration = [];
  let attempt = 0;
  for (let at = row; at !== NONE; at = rows.parent[at]) {
    if (rows.kind[at] === ATTEMPT) attempt = rows.attempt[at];
    else if (rows.kind[at] === ITERATION) iteration.unshift(rows.index[at]);
    else step.unshift(rows.nameOf(at));
  }
  return { step: step.join("/"), iteration, attempt };
}

/** The row at an address, or the innermost one around it that there is; -1 where there is not even that.
 * A step may be named by its id alone. @param {Rows} rows @param {Address} address */
export function rowAt(rows, { step, iteration, attempt }) {
  if (rows.isRecorded) return spanAt(rows, step, iteration[0] ?? 0);
  const names = pathOf(rows, step);
  const indices = [...iteration];
  let row = NONE;
  for (let at = 0; at < names.length; at += 1) {
    const inner = rows.find(row, (each) => rows.kind[each] !== ATTEMPT && rows.nameOf(each) === names[at]
      && rows.kind[each] !== ITERATION);
    if (inner === NONE) return row;
    row = inner;
    const isLoop = rows.first[row] !== NONE && rows.kind[rows.first[row]] === ITERATION;
    if (isLoop && indices.length) {
      const index = indices.shift();
      const pass = rows.find(row, (each) => rows.index[each] === index);
      if (pass === NONE) return row;
      row = pass;
    }
  }
  const tried = attempt ? rows.find(row, (each) => rows.kind[each] === ATTEMPT && rows.attempt[each] === attempt) : NONE;
  return tried === NONE ? row : tried;
}

/** @param {Rows} rows @param {string} step @param {number} number */
function spanAt(rows, step, number) {
  const isIt = rows.stepIds.map((each) => each === step);
  for (let row = 0; row < rows.count; row += 1) if (rows.index[row] === number && isIt[rows.name[row]]) return row;
  return NONE;
}

/** The names from the top to a step. @param {Rows} rows @param {string} step */
function pathOf(rows, step) {
  if (step.includes("/") || rows.find(NONE, (row) => rows.nameOf(row) === step) !== NONE) return step.split("/");
  const id = rows.nameIds.get(step);
  for (let row = 0; row < rows.count; row += 1) {
    if (rows.name[row] === id && rows.kind[row] === STEP) return addressOf(rows, row).step.split("/");
  }
  return [step];
}

/** Whether the row is an attempt of a step, a step or a span that was received, and so has an input and an output.
 * @param {Rows} rows @param {number} row */
export function isLeaf(rows, row) {
  return rows.kind[row] === STEP || rows.kind[row] === ATTEMPT || (rows.isSpan(row) && rows.position[row] > 0);
}

/** Where the API has the attempt of a leaf. @param {Rows} rows @param {number} row */
export function placeOf(rows, row) {
  const { step, iteration } = addressOf(rows, row);
  return { stepId: step.split("/").at(-1) ?? "", loopIndex: iteration.join(","), attempt: rows.attempt[row] || 1 };
}

/** What a row is called on its line: the step, and for an iteration its number.
 * @param {Rows} rows @param {number} row */
export function labelOf(rows, row) {
  if (rows.kind[row] === ITERATION) return `[${rows.index[row]}]`;
  if (rows.kind[row] === ATTEMPT) return `attempt ${rows.attempt[row]}`;
  return rows.nameOf(row);
}

/** What a leaf is called where it stands alone: `correct [3] attempt 2 of 2`. @param {Rows} rows @param {number} row */
export function titleOf(rows, row) {
  const { step, iteration } = addressOf(rows, row);
  const parts = [rows.isRecorded ? rows.nameOf(row) : step.split("/").at(-1)];
  if (iteration.length) parts.push(`[${iteration.join(", ")}]`);
  const whole = rows.kind[row] === ATTEMPT ? rows.parent[row] : row;
  if (rows.attempts[whole] > 1 || rows.attempt[row] > 1) {
    parts.push(`attempt ${rows.attempt[row]} of ${Math.max(rows.attempts[whole], rows.attempt[row])}`);
  }
  return parts.join(" ");
}

/** The line of Python that gets the same attempt. @param {Rows} rows @param {number} row */
export function pythonOf(rows, row) {
  const { stepId, loopIndex, attempt } = placeOf(rows, row);
  const loop = loopIndex.includes(",") ? `(${loopIndex.replaceAll(",", ", ")})` : loopIndex;
  return `run.step_trace(${JSON.stringify(stepId)}, attempt=${attempt}${loop ? `, loop_index=${loop}` : ""})`;
}

/** An address as parameters of a query. @param {Address|null} address */
export function queryOf(address) {
  return {
    step: address?.step || null,
    iteration: address?.iteration.length ? address.iteration.join(",") : null,
    attempt: address?.attempt || null,
  };
}

/** The address in the parameters of a query. @param {URLSearchParams} query @returns {Address|null} */
export function addressIn(query) {
  const step = query.get("step");
  if (!step) return null;
  const iteration = (query.get("iteration") ?? "").split(",").filter((part) => /^\d{1,9}$/.test(part)).map(Number);
  const attempt = Number(query.get("attempt"));
  return { step, iteration, attempt: Number.isInteger(attempt) && attempt > 0 ? attempt : 0 };
}
