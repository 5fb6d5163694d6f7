// What a flow looks like: inside of which containers each of its steps stands, and in which order. Pure.
import { ATTEMPT, BRANCH, CONDITION, ITERATION, KINDS, LOOP, NONE, PARALLEL, STEP } from "./columns.js";

/** @typedef {{kind: number, name: string, rank: number}} Level */

/** @type {Record<string, number>} */
const CONTAINERS = { loop: LOOP, condition: CONDITION, parallel: PARALLEL };

/** The containers around each step, learned from a flow's tree or from rows that are there. */
export class Shape {
  constructor() {
    /** @type {Map<string, Level[]>} outermost first, the step itself last */
    this.levels = new Map();
    /** Each step and container as the flow's tree has it. @type {Map<string, Json>} */
    this.steps = new Map();
  }

  /** Learns from a flow's tree as the API gives it. @param {Json[]} steps @param {Level[]} around */
  learnTree(steps, around = []) {
    steps.forEach((step, at) => {
      const kind = CONTAINERS[step.type] ?? STEP;
      const levels = [...around, { kind, name: String(step.id), rank: at }];
      this.levels.set(String(step.id), levels);
      this.steps.set(String(step.id), step);
      if (kind === LOOP) this.learnTree(step.steps ?? [], levels);
      const branches = kind === CONDITION ? { then: step.then, else: step.else }
        : kind === PARALLEL ? step.branches ?? {} : {};
      Object.entries(branches).forEach(([name, inner], number) => {
        if (inner?.length) this.learnTree(inner, [...levels, { kind: BRANCH, name, rank: number }]);
      });
    });
  }

  /** Learns of steps that no tree told of. @param {import("./columns.js").Rows} rows */
  learnRows(rows) {
    for (let row = 0; row < rows.count; row += 1) {
      const name = rows.nameOf(row);
      if (rows.kind[row] !== STEP || this.levels.has(name)) continue;
      const levels = [];
      for (let at = row; at !== NONE; at = rows.parent[at]) {
        if (rows.kind[at] === ITERATION || rows.kind[at] === ATTEMPT) continue;
        levels.unshift({ kind: rows.kind[at], name: rows.nameOf(at), rank: this.levels.size });
      }
      this.levels.set(name, levels);
    }
  }

  /** @param {string} stepId */
  of(stepId) {
    return this.levels.get(stepId);
  }

  /** Where a row stands among its siblings, by the order of the flow. @param {import("./columns.js").Rows} rows */
  rankOf(rows) {
    const ranks = new Map();
    for (const levels of this.levels.values()) for (const level of levels) ranks.set(`${KINDS[level.kind]} ${level.name}`, level.rank);
    return (/** @type {number} */ row) => {
      if (rows.kind[row] === ITERATION) return rows.index[row];
      if (rows.kind[row] === ATTEMPT) return rows.attempt[row] - 1e9;
      return ranks.get(`${KINDS[rows.kind[row]]} ${rows.nameOf(row)}`) ?? 1e9;
    };
  }
}
