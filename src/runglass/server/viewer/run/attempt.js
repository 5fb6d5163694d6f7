// What the server keeps of one attempt, asked for when somebody looks at it and not before.
import { signal } from "../core/html.js";
import { errorOf, request } from "../core/api.js";
import { placeOf } from "../data/address.js";

const WAIT_MS = 90;
/** Who goes through many rows asks for none of them. */
const KEPT = 40;
/** Attempts that have ended and stay in memory. */

const LARGE_BYTES = 4_000_000;
/** What is larger is read only once somebody says so. */

/** @typedef {{key: string, value: Json, problem: Error|null, loading: boolean, bytes: number}} Attempt
 *   `bytes` is the size of one that is too large to be read unasked, else 0 */

export class AttemptReader {
  /** @param {import("./model.js").RunModel} model */
  constructor(model) {
    this.model = model;
    /** @type {import("../vendor/signals.js").Signal<Attempt>} */
    this.now = signal({ key: "", value: null, problem: null, loading: false, bytes: 0 });
    /** @type {Map<string, Json>} */
    this.kept = new Map();
  }

  /** Reads the attempt of a row; how far it is goes to `now`. @param {number} row
   * @param {{large?: boolean}} [how] `large`: whatever its size */
  read(row, { large = false } = {}) {
    const { stepId, loopIndex, attempt } = placeOf(this.model.rows, row);
    const state = this.model.rows.status[row];
    const key = `${stepId} ${loopIndex} ${attempt} ${state}`;
    if (key === this.now.peek().key && !large) return;
    this.stop();
    const known = this.kept.get(key);
    if (known) {
      this.now.value = { key, value: known, problem: null, loading: false, bytes: 0 };
      return;
    }
    const before = this.now.peek();
    // The same attempt in another state: what is shown stays until the new one is there.
    const isSame = before.key.replace(/ \d+$/, "") === key.replace(/ \d+$/, "");
    this.now.value = { key, value: isSame ? before.value : null, problem: null, loading: true, bytes: 0 };
    this.abort = new AbortController();
    const { signal: abort } = this.abort;
    this.timer = setTimeout(async () => {
      const parameters = new URLSearchParams({ attempt: String(attempt) });
      if (loopIndex) parameters.set("loop_index", loopIndex);
      // What has begun since the outline was read has none: it is found by its iteration.
      const position = this.model.rows.position[row];
      if (position) parameters.set("position", String(position));
      try {
        const path = `${this.model.path}/steps/${encodeURIComponent(stepId)}/trace?${parameters}`;
        const answer = await request(path, { signal: abort });
        const bytes = Number(answer.headers.get("content-length") ?? 0);
        if (bytes > LARGE_BYTES && !large) {
          this.now.value = { key, value: null, problem: null, loading: false, bytes };
          this.abort?.abort();
          return;
        }
        const value = await answer.json();
        if (value.status !== "running") this.keep(key, value);
        this.now.value = { key, value, problem: null, loading: false, bytes: 0 };
      } catch (error) {
        if (!abort.aborted) this.now.value = { key, value: null, problem: errorOf(error), loading: false, bytes: 0 };
      }
    }, WAIT_MS);
  }

  stop() {
    clearTimeout(this.timer);
    this.abort?.abort();
  }

  /** @param {string} key @param {Json} value */
  keep(key, value) {
    this.kept.set(key, value);
    const [oldest] = this.kept.keys();
    if (this.kept.size > KEPT && oldest !== undefined) this.kept.delete(oldest);
  }
}
