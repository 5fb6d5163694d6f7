// A run as its page has it: the rows outside of all signals, and signals that say that something has changed.
import { batch, signal } from "../core/html.js";
import { errorOf, get, request } from "../core/api.js";
import { follow, mayRepeat } from "../core/stream.js";
import { addressOf, placeOf, rowAt } from "../data/address.js";
import { Rows } from "../data/columns.js";
import { densityOf } from "../data/density.js";
import { parse } from "../data/json.js";
import { ENDS, LiveRows } from "../data/live.js";
import { LoopTotals } from "../data/loops.js";
import { hasEnded } from "../data/run.js";
import { View } from "../data/view.js";
import { isEmpty, keep } from "../data/filter.js";
import { Told } from "./told.js";

const FIRST_PAGE = 20_000;
const PAGE = 100_000;
export const MOST_ROWS = 2_000_000;
const FEW_ROWS = 150;
const STRIP = 1200;
/** Buckets of the strip of the whole run. */
const ROWS_PER_MS = 20;
const AGAIN_MS = 1000;
/** How often the outline is read anew at most, where events tell of what is not in it. */
const SUMMARY_MS = 1000;
/** How often the summary is read anew at most, while steps end. */

/** The path of a run, and that of its first rows. @param {string} id */
export function firstReads(id) {
  const path = `/flow-runs/${encodeURIComponent(id)}`;
  return [path, `${path}/trace/outline?limit=${FIRST_PAGE}&partial=true`];
}

/** The `text` of the call that goes on, or that `isOver`; how many `calls` have ended. @typedef {{text: string, calls: number, isOver: boolean}} Said */

export class RunModel {
  /** @param {string} id */
  constructor(id) {
    this.id = id;
    const [path, firstRows] = firstReads(id);
    this.path = path;
    this.firstRows = firstRows;
    this.abort = new AbortController();
    /** @type {import("../vendor/signals.js").Signal<import("../data/run.js").Run|null>} */
    this.run = signal(null);
    /** @type {import("../vendor/signals.js").Signal<Error|null>} */
    this.problem = signal(null);
    /** @type {import("../vendor/signals.js").Signal<import("../core/stream.js").StreamState>} */
    this.stream = signal("live");
    /** How many rows there are, and how many of them have come: as long as it `isPartial`, of the run's two ends. */
    this.loaded = signal({ have: 0, of: 0, isPartial: false });
    /** Counts changes of the rows, and of what is shown of them. */
    this.changes = signal(0);
    this.selected = signal(-1);
    this.filter = signal({ text: "", onlyFailed: false, leastMs: 0 });
    this.matches = signal(0);
    /** What the models of attempts that go on say. @type {Map<string, Said>} */
    this.said = new Map();
    this.loops = new LoopTotals();
    this.told = new Told(this.path, this.abort.signal);
    /** Settled once the flow was looked up. @type {Promise<void>} */
    this.flow = Promise.resolve();
    /** The row that a key for the slowest or costliest led to. @type {{row: number, measure: string}|null} */
    this.lastMost = null;
    /** The timer of the next refresh. @type {ReturnType<typeof setTimeout>|undefined} */
    this.due = undefined;
    /** The timer of the next summary. @type {ReturnType<typeof setTimeout>|undefined} */
    this.summaryDue = undefined;
    /** Where following has led, and what was open before. */
    this.followed = { row: -1, chosen: new Map(), shown: new Set() };
    this.rows = new Rows();
    this.view = new View(this.rows);
    this.density = densityOf(this.rows, 1, 1);
    /** The last event that is in the rows. */
    this.seq = 0;
  }

  /** Keeps what is opened and selected, though the rows have other numbers now. @param {Rows} rows */
  startOver(rows) {
    const view = new View(rows);
    const now = (/** @type {number} */ row) => rowAt(rows, addressOf(this.rows, row));
    view.carryOver(this.view, now);
    if (this.selected.peek() >= 0) this.selected.value = now(this.selected.peek());
    // Who follows has not moved away.
    const { row, chosen, shown } = this.followed;
    this.followed = {
      row: row < 0 ? row : now(row), shown: new Set([...shown].map(now)),
      chosen: new Map([...chosen].map(([each, how]) => [now(each), how])),
    };
    this.rows = rows;
    this.view = view;
    this.density = densityOf(rows, 1, 1);
    this.seq = 0;
  }

  /** Milliseconds since the start at which it ended, or now. */
  endMs() {
    const run = this.run.peek();
    if (!run?.startedAt) return 1;
    // The sender's clock tells when: now is as long after that as it is told late.
    if (run.recording && !this.rows.goesOn()) return Math.max(1, this.rows.latest());
    if (hasEnded(run)) return Math.max(1, run.durationMs ?? 0, this.rows.latest());
    return Math.max(1, Date.now() - Date.parse(run.startedAt), this.rows.latest());
  }

  hasEnded() {
    const run = this.run.peek();
    return run !== null && hasEnded(run);
  }

  async open() {
    try {
      const first = get(this.firstRows, this.abort.signal);
      // Whoever reads the rows is told of it.
      first.catch(() => {});
      const run = await get(this.path, this.abort.signal);
      this.take(run);
      const { seq, partial: isPartial } = await first;
      const shown = () => { if (this.changes.peek()) this.reshow(); };
      this.flow = this.told.readFlow(run).then(shown);
      this.told.readEnds(seq, this.hasEnded()).then(shown);
      if (isPartial) this.showEnds(await first);
      await this.load(isPartial ? undefined : first);
      // Of loops that have begun since the summary was read, and before the rows were, another one tells.
      if (!this.hasEnded()) this.take(await get(this.path, this.abort.signal));
      // It may have ended after its rows were read, and before its summary was.
      if (this.hasEnded() && this.rows.goesOn()) await this.load();
      if (!this.hasEnded()) await this.followLive();
      else if (!hasEnded(run)) this.told.readEnds(this.seq, true);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Says why nothing follows. @param {unknown} error */
  fail(error) {
    if (this.abort.signal.aborted) return;
    this.problem.value = errorOf(error);
    this.stream.value = "ended";
  }

  /** Takes in a summary. @param {import("../data/run.js").Run} run */
  take(run) {
    this.loops.learn(run);
    this.run.value = run;
  }

  close() {
    this.abort.abort();
  }

  /** Shows the beginning and the end of a long run until all of it has come. @param {Json} page */
  showEnds(page) {
    const rows = new Rows();
    rows.addPage(page);
    this.startOver(rows);
    this.loaded.value = { have: rows.count, of: rows.count, isPartial: true };
    this.refresh();
  }

  /** The page of the outline that follows on these rows. @param {Rows} rows */
  readPage(rows) {
    const parameters = new URLSearchParams({ limit: String(rows.count ? PAGE : FIRST_PAGE) });
    if (rows.count) {
      parameters.set("after", String(rows.count - 1));
      parameters.set("seq", String(this.seq));
    }
    return get(`${this.path}/trace/outline?${parameters}`, this.abort.signal);
  }

  /** Reads the outline, page by page: the first one is shown while the others come.
   * @param {Promise<Json>} [first] that page, where it is on its way already @returns {Promise<void>} */
  async load(first) {
    const rows = new Rows();
    let isShown = false;
    for (;;) {
      const page = await (rows.count || !first ? this.readPage(rows) : first);
      if (rows.count && page.seq !== this.seq) return this.load();
      rows.reserve(Math.min(page.rowCount, MOST_ROWS));
      rows.addPage(page);
      if (!isShown && (this.rows.count === 0 || rows.count >= page.rowCount)) {
        this.startOver(rows);
        // Decided once: what is folded of a run that goes on must not change under the reader.
        this.view.isSmall = page.rowCount <= FEW_ROWS && this.hasEnded();
        isShown = true;
      }
      this.seq = page.seq;
      this.loaded.value = { have: rows.count, of: page.rowCount, isPartial: false };
      if (isShown) this.refresh();
      if (rows.count >= Math.min(page.rowCount, MOST_ROWS) || page.columns.parent.length === 0) break;
    }
    if (!isShown) {
      const { seq } = this;
      this.startOver(rows);
      this.seq = seq;
      this.refresh();
    }
  }

  /** What a flow looks like, for steps that begin while we look. */
  async learn() {
    await this.flow;
    const shape = this.told.shape();
    shape.learnRows(this.rows);
    return shape;
  }

  async followLive() {
    const startedMs = Date.parse(this.run.peek()?.startedAt ?? new Date().toISOString());
    let live = new LiveRows(this.rows, await this.learn(), startedMs);
    /** Events from the one on for which the outline is to be read anew. @type {import("../data/live.js").RunEvent[]|null} */
    let since = null;
    const take = (/** @type {import("../data/live.js").RunEvent} */ event) => {
      const isKnown = live.apply(event) && !event.eventType.startsWith("step_paused");
      if (since) since.push(event);
      else if (!isKnown) {
        since = [event];
        // A long one takes its time, as long as that has to be the whole.
        setTimeout(takeAgain, Math.max(AGAIN_MS, this.rows.count / ROWS_PER_MS));
      }
    };
    const takeAgain = async () => {
      const told = since ?? [];
      try {
        await this.load();
        live = new LiveRows(this.rows, await this.learn(), startedMs);
        since = null;
        // What came while it was read is not in it.
        told.filter((event) => event.seq > this.seq).forEach(take);
        this.refreshSoon();
      } catch {
        // The next such event has it read anew.
        since = null;
      }
    };
    await follow((lastId) => `${this.path}/trace/stream?after=${lastId || this.seq}`, {
      lastId: "", abort: this.abort.signal,
      onState: (state) => { this.stream.value = state; },
      onFrames: (frames) => {
        let ended = false;
        for (const frame of frames) {
          const event = parse(frame.data);
          // An outline that was read anew may be ahead of the stream.
          if (event.seq <= this.seq) continue;
          this.hear(event);
          this.told.take(event);
          this.loops.apply(event);
          take(event);
          ended ||= /^flow_(completed|failed|cancelled)$/.test(event.eventType);
        }
        if (ended || frames.some((frame) => /run_started|step_paused|step_resumed/.test(frame.event))) this.readSummarySoon(0, ended);
        else if (frames.some((frame) => frame.event !== "step_progress")) this.readSummarySoon(SUMMARY_MS);
        this.refreshSoon();
        return ended;
      },
    });
  }

  /** What the model of a row's attempt says, where it goes on. @param {number} row @returns {Said|undefined} */
  saidIn(row) {
    return this.said.size ? this.said.get(this.attemptOf(row)) : undefined;
  }

  /** What changes where there is news of a row's attempt: another state, a call of its model that ended, the end of the run.
   * @param {number} row */
  stateOf(row) {
    return `${this.rows.status[row]} ${this.saidIn(row)?.calls} ${this.hasEnded()}`;
  }

  /** @param {number} row */
  attemptOf(row) {
    const { stepId, loopIndex, attempt } = placeOf(this.rows, row);
    return `${stepId} ${loopIndex} ${attempt}`;
  }

  /** Keeps what a model says meanwhile. @param {import("../data/live.js").RunEvent} event */
  hear({ eventType: type, stepId, loopPath = [], attempt, text, modelCall }) {
    const key = `${stepId} ${loopPath.join(",")} ${attempt}`;
    // Of an attempt that had begun before, the first words may be missing.
    const said = this.said.get(key) ?? { text: "… ", calls: 0, isOver: false };
    if (type === "step_started") this.said.set(key, { text: "", calls: 0, isOver: false });
    else if (type === "step_progress") this.said.set(key, { ...said, text: (said.isOver ? "" : said.text) + text, isOver: false });
    else if (type === "step_model_call") this.said.set(key, { ...said, calls: modelCall?.number ?? said.calls + 1, isOver: true });
    // What is shown stays until the attempt is read anew.
    else if (type in ENDS && key !== this.attemptOf(this.selected.peek())) this.said.delete(key);
  }

  /** Reads the summary anew in so many milliseconds: the server alone adds up tokens and cost exactly. Where that fails,
   * what is shown stays until the next step ends; the last one is asked for until it comes. @param {number} ms */
  readSummarySoon(ms, isLast = false) {
    if (ms && this.summaryDue) return;
    clearTimeout(this.summaryDue);
    this.summaryDue = setTimeout(async () => {
      const due = this.summaryDue;
      const found = await get(this.path, this.abort.signal).catch(errorOf);
      // One that was asked for later knows more.
      if (due !== this.summaryDue || this.abort.signal.aborted) return;
      this.summaryDue = undefined;
      if (!(found instanceof Error)) {
        this.take(found);
        if (isLast) this.refresh();
      } else if (isLast && mayRepeat(found)) {
        this.stream.value = "lost";
        this.readSummarySoon(SUMMARY_MS, isLast);
      } else if (isLast) this.fail(found);
    }, ms);
  }

  refreshSoon() {
    this.due ??= setTimeout(() => {
      this.due = undefined;
      this.refresh();
    }, this.rows.count > 50_000 ? 250 : 60);
  }

  /** Shows the rows as they are now. */
  refresh() {
    this.sift();
    this.density = densityOf(this.rows, this.endMs(), STRIP);
    this.reshow();
  }

  /** Finds what the filter keeps of the rows. */
  sift() {
    const filter = this.filter.peek();
    if (isEmpty(filter)) this.view.kept = null;
    else {
      const found = keep(this.rows, filter, this.endMs());
      this.view.kept = found.kept;
      this.matches.value = found.matches;
    }
  }

  /** Shows the same rows, folded or selected in another way. */
  reshow() {
    this.view.rebuild();
    this.changes.value += 1;
  }

  /** @param {Partial<import("../data/filter.js").Filter>} change */
  setFilter(change) {
    batch(() => {
      this.filter.value = { ...this.filter.value, ...change };
      this.view.chosen.clear();
      this.sift();
      this.reshow();
    });
  }

  /** Stops the run. */
  async cancel() {
    await request(this.path, { method: "DELETE" });
  }
}
