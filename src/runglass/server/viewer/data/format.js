// Numbers and times as people read them. Pure: the time of now is handed in.

/** A duration in the unit that reads best: `842 ms`, `3.4 s`, `2 m 05 s`. @param {number|null|undefined} ms */
export function duration(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms) || ms < 0) return "";
  if (ms < 999.5) return `${ms < 10 && ms % 1 ? ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1).replace(/(\.\d)0$/, "$1")} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} m`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

/** A duration without parts that are nothing: `5 m`, `1 h`, `10 s`. @param {number} ms */
export function round(ms) {
  return duration(ms).replace(/\.0+ s$/, " s").replace(/ 00? [smh]$/, "");
}

/** How long something has taken so far, in whole seconds once it is one: `842 ms`, `40 s`. @param {number|undefined} ms */
export function soFar(ms) {
  return ms === undefined || ms < 1000 ? duration(ms) : duration(Math.floor(ms / 1000) * 1000).replace(/\.0+ s$/, " s");
}

/** Whole numbers with the thousands apart: a browser takes longer to load its own formats than for a page. @param {number} number */
export function exact(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A count, short: `12.4k`. @param {number|null|undefined} number */
export function short(number) {
  if (number === null || number === undefined) return "";
  if (number < 1000) return String(number);
  for (const [size, unit] of /** @type {[number, string][]} */ ([[1e9, "G"], [1e6, "M"], [1e3, "k"]])) {
    if (number >= size * 0.9995) {
      const value = number / size;
      return `${value < 99.95 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)}${unit}`;
    }
  }
  return String(number);
}

/** Money as it is: `$0.0031755`, never rounded to nothing. A decimal text stays as exact as it is.
 * @param {string|number|null|undefined} usd */
export function money(usd) {
  if (usd === null || usd === undefined || usd === "") return "";
  const text = typeof usd === "string" ? usd : plain(usd);
  const [whole, part = ""] = text.split(".");
  const cents = part.replace(/0+$/, "").padEnd(2, "0");
  return `$${whole}.${cents}`;
}

/** Money for a column: three figures that count; the exact amount belongs into the title.
 * @param {string|number|null|undefined} usd */
export function shortMoney(usd) {
  if (usd === null || usd === undefined || usd === "") return "";
  const number = Number(usd);
  if (number === 0 || number >= 100) return `$${number.toFixed(number ? 0 : 2)}`;
  return money(number >= 1 ? number.toFixed(2) : Number(number.toPrecision(3)));
}

/** @param {number} number a sum of decimals: what floats add to it is beyond the twelfth place */
function plain(number) {
  return number.toFixed(12).replace(/\.?0+$/, "");
}

/** Bytes: `812 B`, `1.2 MB`. @param {number|null|undefined} bytes */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "";
  if (bytes < 1000) return `${bytes} B`;
  const [unit, by] = bytes < 999_500 ? ["kB", 1e3] : bytes < 999_500_000 ? ["MB", 1e6] : ["GB", 1e9];
  const value = bytes / Number(by);
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

/** How long ago: `now`, `2 min ago`, `yesterday 14:02`, `26 Nov 14:02`. Times are the reader's own.
 * @param {string|null|undefined} at ISO time @param {number} nowMs */
export function ago(at, nowMs) {
  if (!at) return "";
  const then = new Date(at);
  const seconds = (nowMs - then.getTime()) / 1000;
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  const today = new Date(nowMs);
  const clock = `${two(then.getHours())}:${two(then.getMinutes())}`;
  const days = Math.round((midnight(today) - midnight(then)) / 86_400_000);
  if (days === 0) return seconds < 6 * 3600 ? `${Math.floor(seconds / 3600)} h ago` : `today ${clock}`;
  if (days === 1) return `yesterday ${clock}`;
  const day = `${then.getDate()} ${MONTHS[then.getMonth()]}`;
  return then.getFullYear() === today.getFullYear() ? `${day} ${clock}` : `${day} ${then.getFullYear()}`;
}

/** The exact time, the reader's own: `2026-11-26 14:02:11.123`. @param {string|null|undefined} at */
export function exactTime(at) {
  if (!at) return "";
  const then = new Date(at);
  const day = `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())}`;
  return `${day} ${clockTime(then)}.${String(then.getMilliseconds()).padStart(3, "0")}`;
}

/** Day and time, the reader's own: `Thu 26 Nov 14:02:11`, with the year where it is another one than now.
 * @param {string|null|undefined} at ISO time @param {number} nowMs */
export function dayTime(at, nowMs) {
  if (!at) return "";
  const then = new Date(at);
  const year = then.getFullYear() === new Date(nowMs).getFullYear() ? "" : ` ${then.getFullYear()}`;
  return `${DAYS[then.getDay()]} ${then.getDate()} ${MONTHS[then.getMonth()]}${year} ${clockTime(then)}`;
}

/** A word with its number: `1 step`, `3 steps`. @param {number} number @param {string} word */
export function count(number, word, plural = `${word}s`) {
  return `${exact(number)}${"\u00a0"}${number === 1 ? word : plural}`;
}

/** A model as flows have it without its provider: `gpt-4o-mini`. @param {string} model */
export function shortModel(model) {
  return model.slice(model.indexOf(":") + 1);
}

/** A text that holds no surprises for a line: control characters are shown, and what is too long is cut.
 * @param {string} text @param {number} [most] */
export function oneLine(text, most = 500) {
  const cut = text.length > most ? `${text.slice(0, most)}…` : text;
  return cut.replace(/[\u0000-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (found) =>
    found === "\n" || found === "\t" || found === "\r" ? " " : "\ufffd");
}

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** @param {Date} date */
function clockTime(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
}

/** @param {number} number */
function two(number) {
  return String(number).padStart(2, "0");
}

/** @param {Date} date */
function midnight(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}
