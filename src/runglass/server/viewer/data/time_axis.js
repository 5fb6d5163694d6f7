// The axis of time: which moment is at which place, with idle times folded where that is wanted. Pure.

/** @typedef {{from: number, to: number}} Span milliseconds since the start */

const TICKS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3,
  1800e3, 3600e3, 7200e3, 21600e3, 43200e3, 86400e3];
const TICK_PX = 80;

/** Idle times taken out of the axis: each becomes as short as `keptMs`. */
export class Folding {
  /** @param {Span[]} idle in order, apart @param {number} keptMs */
  constructor(idle = [], keptMs = 0) {
    this.idle = idle.filter((span) => span.to - span.from > keptMs);
    this.keptMs = keptMs;
  }

  /** The place of a moment. @param {number} ms */
  fold(ms) {
    let taken = 0;
    for (const { from, to } of this.idle) {
      if (ms <= from) break;
      const length = to - from;
      const inside = Math.min(ms - from, length);
      taken += inside - (inside / length) * this.keptMs;
    }
    return ms - taken;
  }

  /** The moment at a place. @param {number} place */
  unfold(place) {
    let ms = place;
    for (const { from, to } of this.idle) {
      if (ms <= from) break;
      const length = to - from;
      const inside = Math.min(ms - from, this.keptMs);
      ms += (inside / this.keptMs) * length - inside;
    }
    return ms;
  }
}

/** A window of the axis, `width` pixels wide. */
export class TimeAxis {
  /** @param {Span} window @param {number} width @param {Folding} folding */
  constructor(window, width, folding) {
    this.folding = folding;
    this.window = window;
    this.width = width;
    this.from = folding.fold(window.from);
    this.scale = width / Math.max(1e-6, folding.fold(window.to) - this.from);
  }

  /** Pixels from the left. @param {number} ms */
  x(ms) {
    return (this.folding.fold(ms) - this.from) * this.scale;
  }

  /** @param {number} x */
  ms(x) {
    return this.folding.unfold(this.from + x / this.scale);
  }

  /** Moments for lines with their labels: round ones, some 80 pixels apart. */
  ticks() {
    const perPixel = 1 / this.scale;
    const step = TICKS_MS.find((each) => each >= perPixel * TICK_PX) ?? Math.ceil((perPixel * TICK_PX) / 86_400e3) * 86_400e3;
    const ticks = [];
    let lastX = -Infinity;
    for (let ms = Math.ceil(this.window.from / step) * step; ms <= this.window.to && ticks.length < 200; ms += step) {
      const x = this.x(ms);
      if (x - lastX > TICK_PX * 0.6) {
        ticks.push({ ms, x });
        lastX = x;
      }
    }
    return ticks;
  }
}

/** A window zoomed around a moment, within the whole. @param {Span} window @param {Span} whole
 * @param {number} around @param {number} factor below 1 comes nearer @returns {Span} */
export function zoomed(window, whole, around, factor) {
  const least = Math.min(1, whole.to - whole.from);
  const length = Math.min(whole.to - whole.from, Math.max(least, (window.to - window.from) * factor));
  const part = (around - window.from) / Math.max(1e-9, window.to - window.from);
  return within({ from: around - part * length, to: around + (1 - part) * length }, whole);
}

/** A window moved so that it is within the whole, as long as before. @param {Span} window @param {Span} whole @returns {Span} */
export function within(window, whole) {
  const length = Math.min(window.to - window.from, whole.to - whole.from);
  const from = Math.min(Math.max(window.from, whole.from), whole.to - length);
  return { from, to: from + length };
}
