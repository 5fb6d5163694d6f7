// Which rows are on the screen, in order: what is folded is one line, and so are iterations that say nothing.
// An entry is a row, or below -1 a group of iterations. Pure.
import { COMPLETED, FAILED, ITERATION, NONE, RUNNING, SKIPPED, STEP } from "./columns.js";

/** @typedef {import("./columns.js").Rows} Rows */
/** @typedef {{first: number, last: number, count: number}} Group iterations that follow each other */

const MANY_ITERATIONS = 12;
const LEAST_OF_GROUP = 3;
/** Fewer are shown one by one. */
const MANY_SPANS = 2000;
/** Of more, those below this level are folded at first. */
const FEW_LEVELS = 3;
const OPENED = 1;
const CLOSED = 2;

export class View {
  /** @param {Rows} rows */
  constructor(rows) {
    this.rows = rows;
    this.entries = new Int32Array(256);
    this.count = 0;
    /** @type {Group[]} */
    this.groups = [];
    /** What somebody has opened or closed; all else follows `level`. @type {Map<number, number>} */
    this.chosen = new Map();
    /** Iterations that were taken out of their group. @type {Set<number>} */
    this.shown = new Set();
    /** Whether there is so little that iterations are open from the start. */
    this.isSmall = false;
    /** How deep all is open; null for as it serves best. @type {number|null} */
    this.level = null;
    /** Of a filter: whether each row is shown. @type {Uint8Array|null} */
    this.kept = null;
  }

  /** Takes over what was opened, closed and shown of other rows. @param {View} before
   * @param {(row: number) => number} now the number that a row of those has here */
  carryOver(before, now) {
    this.level = before.level;
    for (const [row, chosen] of before.chosen) this.chosen.set(now(row), chosen);
    for (const row of before.shown) this.shown.add(now(row));
  }

  /** Makes the list anew. */
  rebuild() {
    this.count = 0;
    this.groups = [];
    this.addAll(NONE);
  }

  /** The entry of a row, or of the group or folded row that it is in; -1 where there is none.
   * @param {number} row */
  entryOf(row) {
    for (let at = row; at !== NONE; at = this.rows.parent[at]) {
      const found = this.entries.subarray(0, this.count).indexOf(at);
      if (found >= 0) return found;
      const group = this.rows.kind[at] === ITERATION ? this.groups.findIndex((each) => this.isIn(each, at)) : -1;
      if (group >= 0) return this.entries.subarray(0, this.count).indexOf(-2 - group);
    }
    return -1;
  }

  /** The row of an entry, or the first of its group. @param {number} entry */
  rowOf(entry) {
    return entry >= 0 ? entry : this.groups[-2 - entry].first;
  }

  /** The group of an entry; undefined where it is a row. @param {number} entry */
  groupOf(entry) {
    return entry >= 0 ? undefined : this.groups[-2 - entry];
  }

  /** @param {number} row */
  isOpen(row) {
    const { rows } = this;
    if (rows.children[row] === 0) return false;
    const chosen = this.chosen.get(row);
    if (chosen !== undefined) return chosen === OPENED;
    if (this.kept) return rows.kind[row] !== STEP || this.kept[row] === 2;
    if (this.level !== null) return rows.depth[row] < this.level;
    if (rows.kind[row] === STEP) return false;
    if (rows.kind[row] === ITERATION) return this.isSmall || rows.status[row] === FAILED;
    if (rows.isRecorded) return rows.count <= MANY_SPANS || rows.depth[row] < FEW_LEVELS || rows.status[row] === RUNNING;
    return true;
  }

  /** @param {number} row @param {boolean} open */
  setOpen(row, open) {
    this.chosen.set(row, open ? OPENED : CLOSED);
  }

  /** Shows the iterations of a group one by one. @param {Group} group */
  openGroup(group) {
    for (let row = group.first; ; row = this.rows.next[row]) {
      this.shown.add(row);
      if (row === group.last) return;
    }
  }

  /** Opens all that a row is inside of, so that it can be seen. @param {number} row */
  reveal(row) {
    for (let at = row; at !== NONE; at = this.rows.parent[at]) {
      if (at !== row && !this.isOpen(at)) this.setOpen(at, true);
      if (this.rows.kind[at] === ITERATION) this.shown.add(at);
    }
  }

  /** Folds all to a level; null is as it serves best. @param {number|null} level */
  setLevel(level) {
    this.level = level;
    this.chosen.clear();
    this.shown.clear();
  }

  /** @param {number} parent */
  addAll(parent) {
    const { rows } = this;
    const mayGroup = parent !== NONE && !this.kept && this.level !== Infinity
      && rows.children[parent] > MANY_ITERATIONS && rows.kind[rows.first[parent]] === ITERATION;
    for (let row = rows.firstOf(parent); row !== NONE; row = rows.next[row]) {
      if (this.kept && !this.kept[row]) continue;
      if (mayGroup && !this.isWorthALine(row)) {
        const group = this.groupFrom(row);
        if (group.count >= LEAST_OF_GROUP) {
          this.push(-2 - (this.groups.push(group) - 1));
          row = group.last;
          continue;
        }
      }
      this.push(row);
      if (this.isOpen(row)) this.addAll(row);
    }
  }

  /** @param {number} first @returns {Group} */
  groupFrom(first) {
    let [last, count] = [first, 1];
    for (let row = this.rows.next[first]; row !== NONE && !this.isWorthALine(row); row = this.rows.next[row]) {
      last = row;
      count += 1;
    }
    return { first, last, count };
  }

  /** Whether an iteration says something that a line of many does not. @param {number} row */
  isWorthALine(row) {
    const status = this.rows.status[row];
    return (status !== COMPLETED && status !== SKIPPED) || this.shown.has(row) || this.chosen.has(row);
  }

  /** @param {Group} group @param {number} row */
  isIn(group, row) {
    const { rows } = this;
    return rows.parent[row] === rows.parent[group.first]
      && rows.index[group.first] <= rows.index[row] && rows.index[row] <= rows.index[group.last];
  }

  /** @param {number} entry */
  push(entry) {
    if (this.count === this.entries.length) {
      const larger = new Int32Array(this.count * 2);
      larger.set(this.entries);
      this.entries = larger;
    }
    this.entries[this.count] = entry;
    this.count += 1;
  }
}
