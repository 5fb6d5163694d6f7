// What a filter inside a run keeps: rows that match, what is inside of them, and what they are inside of. Pure.
import { ATTEMPT, CANCELLED, FAILED, ITERATION, KINDS, NONE, RETRIED, RUNNING, SKIPPED, STEP, WAITING } from "./columns.js";

/** @typedef {{text: string, onlyFailed: boolean, leastMs: number}} Filter */

const WORDS = new Map([
  ["failed", FAILED], ["retried", RETRIED], ["running", RUNNING], ["waiting", WAITING], ["skipped", SKIPPED], ["cancelled", CANCELLED],
]);

export const CUT = "truncated";

/** Whether the filter keeps everything. @param {Filter} filter */
export function isEmpty(filter) {
  return !filter.text.trim() && !filter.onlyFailed && !filter.leastMs;
}

/** Of each row 0 where it goes, 1 where it stays, 2 where something inside of it matches by itself; and how many
 * match. Words must all be in the name of the row or of what it is inside of; `[3]` is an iteration; a status
 * is one too, such as `failed`, and `truncated` is a text cut at the token limit. The kind of a span is a word as well.
 * @param {import("./columns.js").Rows} rows @param {Filter} filter @param {number} nowMs since the start */
export function keep(rows, filter, nowMs) {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const statuses = words.flatMap((word) => WORDS.get(word) ?? []);
  const isOnlyCut = words.includes(CUT);
  const texts = words.filter((word) => !WORDS.has(word) && word !== CUT);
  if (filter.onlyFailed) statuses.push(FAILED);
  const named = texts.map((word) => rows.names.map((name) => name.toLowerCase().includes(word)));
  const kept = new Uint8Array(rows.count);
  let matches = 0;
  for (let row = 0; row < rows.count; row += 1) {
    const isLeaf = rows.kind[row] === STEP || rows.kind[row] === ATTEMPT || rows.isRecorded;
    if (!isLeaf && (statuses.length || filter.leastMs || isOnlyCut)) continue;
    if (!statuses.every((status) => rows.status[row] === status)) continue;
    if (isOnlyCut && !rows.cut.has(row)) continue;
    if (filter.leastMs && lengthOf(rows, row, nowMs) < filter.leastMs) continue;
    if (!texts.every((word, at) => hasWord(rows, row, word, named[at]))) continue;
    matches += 1;
    kept[row] ||= 1;
    for (let up = rows.parent[row]; up !== NONE && kept[up] !== 2; up = rows.parent[up]) kept[up] = 2;
  }
  return { kept, matches };
}

/** @param {import("./columns.js").Rows} rows @param {number} row @param {number} nowMs */
export function lengthOf(rows, row, nowMs) {
  if (rows.start[row] < 0) return 0;
  return (rows.end[row] < 0 ? nowMs : rows.end[row]) - rows.start[row];
}

/** @param {import("./columns.js").Rows} rows @param {number} row @param {string} word @param {boolean[]} named */
function hasWord(rows, row, word, named) {
  const index = /^\[(\d+)\]?$/.exec(word)?.[1];
  for (let at = row; at !== NONE; at = rows.parent[at]) {
    if (rows.isRecorded && KINDS[rows.kind[at]] === word) return true;
    if (index === undefined ? named[rows.name[at]] : rows.kind[at] === ITERATION && rows.index[at] === Number(index)) return true;
  }
  return false;
}
