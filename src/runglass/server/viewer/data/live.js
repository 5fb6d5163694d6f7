// What events make of the rows: attempts begin and end, and all that they are inside of adds up. Pure.
import {
  ATTEMPT, CANCELLED, COMPLETED, FAILED, ITERATION, LOOP, NONE, RETRIED, RUNNING, SKIPPED, STEP,
} from "./columns.js";
import { keyOf } from "./loops.js";

/** @typedef {import("./columns.js").Rows} Rows */
/** @typedef {{eventType: string, seq: number, at: string, stepId?: string, loopIndex?: number, loopPath?: number[],
 *   iterations?: number, attempt?: number, durationMs?: number, tokens?: {total: number}, costUsd?: string, text?: string,
 *   error?: {code?: string}, modelCall?: {number?: number, finishReason?: string, tokens?: {total: number}, costUsd?: string}}} RunEvent */

/** Of so many rows inside of a container the worst is looked for each time, of more it is kept. */
const FEW_ROWS = 64;

/** What an attempt has come to with each event that ends it. @type {Record<string, number>} */
export const ENDS = { step_completed: COMPLETED, step_retrying: RETRIED, step_error: FAILED, step_skipped: SKIPPED };

export class LiveRows {
  /** @param {Rows} rows @param {import("./shape.js").Shape} shape @param {number} startedMs when the run started */
  constructor(rows, shape, startedMs) {
    this.rows = rows;
    this.shape = shape;
    this.startedMs = startedMs;
    this.rankOf = shape.rankOf(rows);
    /** The row of the attempt that goes on, by step and iteration. @type {Map<string, number>} */
    this.current = new Map();
    /** The worst status of what has ended inside of a container of many rows. @type {Map<number, number>} */
    this.worst = new Map();
  }

  /** Takes in an event. False where it speaks of a step of which nothing is known: read the outline anew.
   * @param {RunEvent} event */
  apply(event) {
    const type = event.eventType;
    if (type === "flow_cancelled" || type === "flow_failed") this.cutOff(event);
    if (type === "step_model_call") this.takeCall(event);
    // What a span adds to the sums around it depends on all others: the server knows.
    if (type === "step_recorded") return false;
    if (type !== "step_started" && type !== "step_resumed" && !(type in ENDS)) return true;
    const stepId = event.stepId ?? "";
    const path = pathOf(event);
    const row = this.attemptRow(stepId, path, event.attempt ?? 1);
    if (row === NONE) return false;
    const at = Math.max(0, Date.parse(event.at) - this.startedMs);
    if (type in ENDS) {
      this.spend(row, event.tokens?.total ?? 0, event.costUsd === undefined ? NaN : Number(event.costUsd));
      this.end(row, at, event.error?.code === "CANCELLED" && type === "step_error" ? CANCELLED : ENDS[type]);
      this.current.delete(keyOf(stepId, path));
    } else this.begin(row, at);
    return true;
  }

  /** Takes in what a call of a model used, and whether it was stopped at its limit of tokens. @param {RunEvent} event */
  takeCall({ stepId = "", attempt = 1, modelCall = {}, ...event }) {
    const { rows } = this;
    const row = this.attemptRow(stepId, pathOf(event), attempt);
    if (row === NONE) return;
    const cost = modelCall.costUsd === undefined ? rows.cost[row] : (rows.cost[row] || 0) + Number(modelCall.costUsd);
    this.spend(row, rows.tokens[row] + (modelCall.tokens?.total ?? 0), cost);
    if (modelCall.finishReason === "length") rows.cut.add(row);
    else rows.cut.delete(row);
  }

  /** Sets what an attempt has used, which all that it is inside of has used too. @param {number} row
   * @param {number} tokens @param {number} cost NaN where nobody knows it */
  spend(row, tokens, cost) {
    const { rows } = this;
    const [more, dearer] = [tokens - rows.tokens[row], (cost || 0) - (rows.cost[row] || 0)];
    rows.tokens[row] = tokens;
    rows.cost[row] = cost;
    for (let up = rows.parent[row]; up !== NONE; up = rows.parent[up]) {
      rows.tokens[up] += more;
      if (!Number.isNaN(cost)) rows.cost[up] = (rows.cost[up] || 0) + dearer;
    }
  }

  /** @param {number} row @param {number} at */
  begin(row, at) {
    const { rows } = this;
    if (!rows.isGoing(row)) {
      rows.start[row] = at;
      rows.end[row] = -1;
      rows.addOpen(row, 1);
    }
    rows.status[row] = RUNNING;
    for (let up = rows.parent[row]; up !== NONE; up = rows.parent[up]) {
      if (rows.start[up] < 0 || at < rows.start[up]) rows.start[up] = at;
      rows.end[up] = -1;
      // A step that is tried again goes on; what is inside of a container that failed does not mend it.
      if (rows.status[up] !== FAILED) rows.status[up] = RUNNING;
    }
  }

  /** @param {number} row @param {number} at @param {number} status */
  end(row, at, status) {
    const { rows } = this;
    if (rows.isGoing(row)) rows.addOpen(row, -1);
    rows.status[row] = status;
    rows.end[row] = status === SKIPPED ? rows.end[row] : at;
    let inner = row;
    for (let up = rows.parent[row]; up !== NONE; up = rows.parent[up]) {
      const worst = this.worstInside(up, inner);
      inner = up;
      if (rows.open[up] > 0) {
        if (status === FAILED) rows.status[up] = FAILED;
        continue;
      }
      if (rows.status[up] !== FAILED) rows.status[up] = Math.max(status, worst);
      if (rows.start[up] >= 0) rows.end[up] = Math.max(rows.end[up], at);
    }
  }

  /** Ends what still runs, as the run has ended. @param {RunEvent} event */
  cutOff(event) {
    const { rows } = this;
    const at = Math.max(0, Date.parse(event.at) - this.startedMs);
    const status = event.eventType === "flow_cancelled" ? CANCELLED : FAILED;
    for (let row = 0; row < rows.count; row += 1) {
      const isAttempt = rows.kind[row] === ATTEMPT || (rows.kind[row] === STEP && rows.first[row] === NONE);
      if (!isAttempt) continue;
      if (rows.isGoing(row)) this.end(row, at, status);
      // What was to be tried again is not.
      const isLast = rows.kind[row] === STEP || rows.next[row] === NONE;
      if (isLast && rows.status[row] === RETRIED) for (let up = row; up !== NONE; up = rows.parent[up]) rows.status[up] = FAILED;
    }
  }

  /** The worst status of what has ended inside of a container, after something has in one of its rows.
   * @param {number} row @param {number} inner */
  worstInside(row, inner) {
    const { rows } = this;
    const known = this.worst.get(row);
    let worst = known ?? SKIPPED;
    // A loop of a hundred thousand iterations is not looked through at the end of each.
    if (known === undefined) for (let each = rows.first[row]; each !== NONE; each = rows.next[each]) worst = this.worse(worst, each);
    else worst = this.worse(worst, inner);
    if (rows.children[row] > FEW_ROWS) this.worst.set(row, worst);
    return worst;
  }

  /** @param {number} worst @param {number} row */
  worse(worst, row) {
    return this.rows.isGoing(row) ? worst : Math.max(worst, this.rows.status[row]);
  }

  /** The row of an attempt, made where there is none yet; -1 where the step is not known.
   * @param {string} stepId @param {number[]} path @param {number} attempt */
  attemptRow(stepId, path, attempt) {
    const { rows } = this;
    const key = keyOf(stepId, path);
    const known = this.current.get(key);
    if (known !== undefined && rows.attempt[known] === attempt) return known;
    const levels = this.shape.of(stepId);
    if (!levels) return NONE;
    let row = NONE;
    let loops = 0;
    for (const level of levels) {
      row = this.inside(row, level.kind, level.name, level.rank);
      // A step that was skipped is in fewer iterations than there are loops around it.
      if (level.kind === LOOP && loops < path.length) {
        row = this.pass(row, level.name, path[loops]);
        loops += 1;
      }
    }
    const found = this.tried(row, attempt);
    this.current.set(key, found);
    return found;
  }

  /** @param {number} parent @param {number} kind @param {string} name @param {number} rank */
  inside(parent, kind, name, rank) {
    const { rows } = this;
    const id = rows.nameId(name);
    const found = rows.find(parent, (row) => rows.name[row] === id && rows.kind[row] === kind);
    return found === NONE ? rows.insert(parent, kind, name, rank, this.rankOf) : found;
  }

  /** The row of an iteration, looked for from the last one on. @param {number} loop @param {string} name @param {number} index */
  pass(loop, name, index) {
    const { rows } = this;
    for (let row = rows.last[loop]; row !== NONE; row = rows.prev[row]) {
      if (rows.kind[row] !== ITERATION || rows.index[row] < index) break;
      if (rows.index[row] === index) return row;
    }
    const row = rows.insert(loop, ITERATION, name, index, this.rankOf);
    rows.index[row] = index;
    return row;
  }

  /** The row of an attempt of a step: the step's own as long as it has one alone.
   * @param {number} step @param {number} attempt */
  tried(step, attempt) {
    const { rows } = this;
    if (rows.attempts[step] === 0 || (rows.attempts[step] === 1 && rows.attempt[step] === attempt)) {
      rows.attempts[step] = 1;
      rows.attempt[step] = attempt;
      return step;
    }
    if (rows.attempts[step] === 1) this.moveDown(step);
    const found = rows.find(step, (row) => rows.attempt[row] === attempt);
    if (found !== NONE) return found;
    this.passOver(rows.last[step]);
    rows.attempts[step] += 1;
    rows.attempt[step] = attempt;
    return this.attemptOf(step, attempt);
  }

  /** An attempt that another one follows on has not failed for good, as an outline has it that was made between the two.
   * @param {number} row */
  passOver(row) {
    const { rows } = this;
    if (rows.status[row] !== FAILED && rows.status[row] !== CANCELLED) return;
    rows.status[row] = RETRIED;
    for (let up = rows.parent[row]; up !== NONE && rows.status[up] === FAILED; up = rows.parent[up]) {
      rows.status[up] = SKIPPED;
      for (let each = rows.first[up]; each !== NONE; each = rows.next[each]) rows.status[up] = Math.max(rows.status[up], rows.status[each]);
    }
  }

  /** @param {number} step @param {number} attempt */
  attemptOf(step, attempt) {
    const row = this.rows.insert(step, ATTEMPT, this.rows.nameOf(step), attempt - 1e9, this.rankOf);
    this.rows.attempt[row] = attempt;
    return row;
  }

  /** Gives the first attempt of a step a row of its own, below it. @param {number} step */
  moveDown(step) {
    const { rows } = this;
    if (rows.kind[step] !== STEP) return;
    const row = this.attemptOf(step, rows.attempt[step]);
    for (const column of /** @type {const} */ (["status", "start", "end", "tokens", "cost"])) rows[column][row] = rows[column][step];
    if (rows.isGoing(step)) rows.open[row] = 1;
    if (rows.cut.delete(step)) rows.cut.add(row);
  }
}

/** @param {RunEvent} event */
function pathOf(event) {
  return event.loopPath ?? (event.loopIndex === undefined ? [] : [event.loopIndex]);
}
