// What the server keeps of one attempt, asked for when somebody looks at it and not before.
import { signal } from "../core/html.js";
import { errorOf, get } from "../core/api.js";
import { placeOf } from "../data/address.js";
import { FIRST_BYTES } from "./large_content.js";

const WAIT_MS = 90;
/** Who goes through many rows asks for none of them. */
const KEPT = 40;
/** Attempts of a run that has ended which stay in memory. */

/** @typedef {{of: string, key: string, value: Json, problem: Error|null, loading: boolean}} Attempt `of` which attempt, `key` with its state;
 *   `value.leftOut` has the sizes of those parts that are too large to be read unasked */

/** Where the API has a part of an attempt, or with `trace` all of it. @param {import("./model.js").RunModel} model
 * @param {number} row @param {"trace"|"payload"} what @param {Record<string, string>} [more] */
export function pathOf(model, row, what, more = {}) {
  const { stepId, loopIndex, attempt } = placeOf(model.rows, row);
  const parameters = new URLSearchParams({ ...more, attempt: String(attempt) });
  if (loopIndex) parameters.set("loop_index", loopIndex);
  // What has begun since the outline was read has none: it is found by its iteration.
  const position = model.rows.position[row];
  if (position) parameters.set("position", String(position));
  return `${model.path}/steps/${encodeURIComponent(stepId)}/${what}?${parameters}`;
}

export class AttemptReader {
  /** @param {import("./model.js").RunModel} model */
  constructor(model) {
    this.model = model;
    /** @type {import("../vendor/signals.js").Signal<Attempt>} */
    this.now = signal({ of: "", key: "", value: null, problem: null, loading: false });
    /** @type {Map<string, Json>} */
    this.kept = new Map();
  }

  /** Reads the attempt of a row; how far it is goes to `now`. @param {number} row
   * @param {{whole?: boolean}} [how] `whole`: with all of its parts, whatever their size */
  read(row, { whole = false } = {}) {
    const of = this.model.attemptOf(row);
    const key = `${of} ${this.model.stateOf(row)}`;
    const before = this.now.peek();
    if (key === before.key && !before.loading && !whole) return;
    this.stop();
    const known = this.kept.get(of);
    if (known && !whole) {
      this.now.value = { of, key, value: known, problem: null, loading: false };
      return;
    }
    // The same attempt in another state: what is shown stays until the new one is there.
    this.now.value = { of, key, value: before.of === of ? before.value : null, problem: null, loading: true };
    this.abort = new AbortController();
    const { signal: abort } = this.abort;
    this.timer = setTimeout(async () => {
      const path = pathOf(this.model, row, "trace", whole ? {} : { part_bytes: String(FIRST_BYTES) });
      try {
        // Something may be told of an attempt until its run ends, also while the response is on its way.
        const isFinal = this.model.hasEnded();
        const value = await get(path, abort);
        if (isFinal) this.keep(of, value);
        this.now.value = { of, key, value, problem: null, loading: false };
      } catch (error) {
        if (!abort.aborted) this.now.value = { of, key, value: null, problem: errorOf(error), loading: false };
      }
    }, WAIT_MS);
  }

  stop() {
    clearTimeout(this.timer);
    this.abort?.abort();
  }

  /** @param {string} of @param {Json} value */
  keep(of, value) {
    this.kept.set(of, value);
    const [oldest] = this.kept.keys();
    if (this.kept.size > KEPT && oldest !== undefined) this.kept.delete(oldest);
  }
}
