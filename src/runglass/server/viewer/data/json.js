// JSON as it was sent: a number that this language cannot hold keeps its digits. Pure.

/** `JSON` with what browsers have learned since 2023. @type {Json} */
const NEWER = JSON;
/** Other numbers are held exactly, and to look at each takes several times as long. */
const MAY_BE_LARGE = /\d{16}|\d[eE]\+?\d{3}/;

/** A number as its text, which is what it is shown and written as. */
export class LargeNumber {
  /** @param {string} digits */
  constructor(digits) {
    this.digits = digits;
  }

  toString() {
    return this.digits;
  }

  valueOf() {
    return Number(this.digits);
  }

  toJSON() {
    return NEWER.rawJSON(this.digits);
  }
}

/** The value of a text; a number in it may be a LargeNumber. Throws SyntaxError. @param {string} text @returns {Json} */
export function parse(text) {
  if (!NEWER.rawJSON || !MAY_BE_LARGE.test(text)) return JSON.parse(text);
  try {
    return NEWER.parse(text, exact);
  } catch (error) {
    // It goes into what is nested by recursion, for which thousands of levels leave no room.
    if (error instanceof RangeError) return JSON.parse(text);
    throw error;
  }
}

/** @param {string} _ @param {Json} value @param {{source?: string}} context what the text says */
function exact(_, value, { source = "" }) {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  const isHeld = Number.isFinite(value) && (!/^-?\d+$/.test(source) || BigInt(source) === BigInt(value));
  return isHeld ? value : new LargeNumber(source);
}
