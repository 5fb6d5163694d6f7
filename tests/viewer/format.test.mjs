import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ago, dayTime, duration, exactTime, money, oneLine, shortMoney,
} from "../../src/runglass/server/viewer/data/format.js";

/** @template T @param {(value: T) => string} shown @param {[T, string][]} cases */
function holds(shown, cases) {
  for (const [value, text] of cases) assert.equal(shown(value), text, `of ${value}`);
}

test("a duration is in the unit that reads best, and never 60 s or 1000 ms", () => {
  holds(duration, [
    [0, "0 ms"], [0.25, "0.3 ms"], [842, "842 ms"], [999.4, "999 ms"], [999.6, "1.0 s"], [1234, "1.23 s"],
    [3400, "3.4 s"], [12_000, "12.0 s"], [59_949, "59.9 s"], [59_960, "1 m 00 s"], [125_000, "2 m 05 s"],
    [3_599_600, "1 h 00 m"], [5_400_000, "1 h 30 m"], [90_000_000, "1 d 1 h"], [null, ""], [undefined, ""], [-1, ""],
    [Number.NaN, ""],
  ]);
});

test("money keeps every place that the server tells", () => {
  holds(money, [
    ["0.0031755", "$0.0031755"], ["0.00003", "$0.00003"], ["12", "$12.00"], ["0.50", "$0.50"], [0.1 + 0.2, "$0.30"],
    ["0.000000000001", "$0.000000000001"], [null, ""], ["", ""],
  ]);
});

test("money in a column is never rounded to nothing", () => {
  holds(shortMoney, [
    ["0.0031755", "$0.00318"], ["0.00000945", "$0.00000945"], ["3.14159", "$3.14"], ["1234.5", "$1235"], ["0", "$0.00"],
    [undefined, ""],
  ]);
});

test("times are told as people tell them", () => {
  const now = new Date(2026, 10, 26, 14, 30, 0).getTime();
  const before = (/** @type {number} */ seconds) => new Date(now - seconds * 1000).toISOString();
  holds((seconds) => ago(before(seconds), now), [
    [-3, "now"], [2, "now"], [40, "40 s ago"], [150, "2 min ago"], [3 * 3600, "3 h ago"], [10 * 3600, "today 04:30"],
    [24 * 3600, "yesterday 14:30"], [48 * 3600, "24 Nov 14:30"], [400 * 86_400, "22 Oct 2025"],
  ]);
  assert.equal(ago(undefined, now), "");
  assert.equal(exactTime(before(0)), "2026-11-26 14:30:00.000");
  holds((seconds) => dayTime(before(seconds), now), [[0, "Thu 26 Nov 14:30:00"], [400 * 86_400, "Wed 22 Oct 2025 14:30:00"]]);
  assert.equal(dayTime(undefined, now), "");
});

test("a line has no control characters, no marks of direction, and an end", () => {
  assert.equal(oneLine("a\nb\u0000c\u202ed"), "a b\ufffdc\ufffdd");
  assert.equal(oneLine("x".repeat(600)).length, 501);
});
