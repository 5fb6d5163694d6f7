// What is told of a run beside its rows: what it was given and what came of it, what was set anew for it, and its flow's
// steps. The events at the two ends of its log have that, so that a run of any length is asked for these alone.
import { signal } from "../core/html.js";
import { errorOf, me, request } from "../core/api.js";
import { firstFrames } from "../core/stream.js";
import { parse } from "../data/json.js";
import { valuesIn } from "../data/overrides.js";
import { Shape } from "../data/shape.js";

const MOST_BYTES = 2_000_000;
/** Of one end of the log: what is larger is not read unasked. */
const FIRST = new Set(["run_started", "run_input", "overrides_applied"]);

/** @typedef {import("../data/overrides.js").Fields} Fields */
/** @typedef {import("../data/live.js").RunEvent & {inputs?: Json, messages?: Json, attachments?: Json, result?: Json,
 *   truncated?: boolean, blockOverrides?: Fields, inputOverrides?: Fields}} EndEvent */
/** A value that is kept; `isCut` where it was cut to the limit of snapshots. @typedef {{value: Json, isCut: boolean}} Kept */
/** `isRead` once all is there that is kept, `tooLarge` where more is kept than is read. @typedef {{input: Kept|null,
 *   result: Kept|null, isRead: boolean, isImported: boolean, tooLarge: string[], problem: string,
 *   overrides: Map<string, Json>}} Content `isImported` where the version came with an imported run, and does not run. */

export class Told {
  /** @param {string} path of the run @param {AbortSignal} abort */
  constructor(path, abort) {
    this.path = path;
    this.abort = abort;
    /** @type {import("../vendor/signals.js").Signal<Content>} */
    this.content = signal({ input: null, result: null, isRead: false, isImported: false, tooLarge: [], problem: "", overrides: new Map() });
    /** Steps by id, as the flow has them. @type {Map<string, Json>} */
    this.steps = new Map();
    /** @type {Json[]} */
    this.tree = [];
  }

  /** Takes in what an event tells of the run as a whole. @param {EndEvent} event */
  take(event) {
    const { eventType: type, inputs, messages, attachments, truncated: isCut = false } = event;
    const { overrides } = this.content.peek();
    // Of one whose content has expired the event is there still.
    if (type === "run_input" && (inputs ?? messages ?? attachments)) this.change({ input: { value: { inputs, messages, attachments }, isCut } });
    else if (type === "flow_completed" && (event.result ?? null) !== null) this.change({ result: { value: event.result, isCut } });
    else if (type === "overrides_applied") this.change({ overrides: new Map([...overrides, ...valuesIn(event)]) });
  }

  /** @param {Partial<Content>} change */
  change(change) {
    this.content.value = { ...this.content.peek(), ...change };
  }

  /** Reads both ends of the log, which has `seq` events.
   * @param {number} seq @param {boolean} hasEnded */
  async readEnds(seq, hasEnded) {
    try {
      if (seq > 0) await this.readFrom(0, (event) => event.seq >= seq || !FIRST.has(event.eventType));
      // One that failed may have kept its input then, in the event before the last one.
      if (hasEnded) await this.readFrom(Math.max(0, seq - 2), (event) => event.eventType.startsWith("flow_"));
      this.change({ isRead: true });
    } catch (error) {
      if (!this.abort.aborted) this.change({ problem: errorOf(error).message });
    }
  }

  /** @param {number} after @param {(event: EndEvent) => boolean} isLast */
  async readFrom(after, isLast) {
    const { frames, isCut } = await firstFrames(`${this.path}/trace/stream?after=${after}`, {
      abort: this.abort, mostBytes: MOST_BYTES, isLast: ({ data }) => isLast(parse(data)),
    });
    for (const { data } of frames) this.take(parse(data));
    if (isCut) this.change({ tooLarge: [...this.content.peek().tooLarge, after ? "Result" : "Input"] });
  }

  /** Reads the flow as it was in the version of the run, where it is there still. @param {import("../data/run.js").Run} run */
  async readFlow({ flowId, flowSlug, version, recording }) {
    const who = me.peek();
    if (!flowSlug || !who || recording) return;
    const path = `/flows/${[who.org, who.project, flowSlug].map(encodeURIComponent).join("/")}/versions/${version ?? 0}`;
    const answer = await request(path, { signal: this.abort }).catch(() => null);
    // The flow of the run may have been deleted, and another one have its slug.
    if (answer?.headers.get("X-Flow-Id") !== flowId) return;
    const flow = await answer?.json().catch(() => null);
    if (answer?.headers.has("X-Version-Imported")) this.change({ isImported: true });
    this.tree = flow?.steps ?? [];
    this.steps = this.shape().steps;
  }

  /** What the flow looks like. */
  shape() {
    const shape = new Shape();
    shape.learnTree(this.tree);
    return shape;
  }
}
