// A whole run in a strip: how many leaves go on at each time, and the worst that happened then. Pure.
import { COMPLETED, FAILED, SKIPPED } from "./columns.js";

/** @typedef {{busy: Uint32Array, worst: Uint8Array, most: number}} Density */

/** The density of a run in so many buckets. A failure is in the bucket in which it happened, however short it was.
 * @param {import("./columns.js").Rows} rows @param {number} endMs @param {number} buckets @returns {Density} */
export function densityOf(rows, endMs, buckets) {
  const change = new Int32Array(buckets + 1);
  const worst = new Uint8Array(buckets);
  const per = buckets / Math.max(1, endMs);
  const { start, end, status, count } = rows;
  for (let row = 0; row < count; row += 1) {
    if (!rows.isAttempt(row) || start[row] < 0 || status[row] === SKIPPED) continue;
    const from = Math.min(buckets - 1, Math.floor(start[row] * per));
    const until = end[row] < 0 ? endMs : end[row];
    const to = Math.min(buckets - 1, Math.max(from, Math.ceil(until * per) - 1));
    change[from] += 1;
    change[to + 1] -= 1;
    // What went well is all the same wherever it is, and a failure is where it happened, at the end.
    const worstTo = status[row] > COMPLETED ? to : from;
    for (let at = status[row] === FAILED ? to : from; at <= worstTo; at += 1) if (status[row] > worst[at]) worst[at] = status[row];
  }
  const busy = new Uint32Array(buckets);
  let [going, most] = [0, 0];
  for (let at = 0; at < buckets; at += 1) {
    going += change[at];
    busy[at] = going;
    if (going > most) most = going;
  }
  return { busy, worst, most };
}

/** Times in which nothing went on. @param {Density} density @param {number} endMs */
export function idleTimes(density, endMs) {
  const per = endMs / density.busy.length;
  /** @type {import("./time_axis.js").Span[]} */
  const spans = [];
  let from = -1;
  density.busy.forEach((busy, at) => {
    if (busy === 0 && from < 0) from = at;
    if (busy > 0 && from >= 0) {
      spans.push({ from: from * per, to: at * per });
      from = -1;
    }
  });
  return spans;
}
