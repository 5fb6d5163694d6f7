// The runs that a query finds: page by page as far as somebody scrolls, and live from then on.
import { batch, signal } from "../core/html.js";
import { errorOf, get, me } from "../core/api.js";
import { follow } from "../core/stream.js";
import { parse } from "../data/json.js";

const PAGE = 50;
const MOST_IN_PAGE = 100;
const MOST_WAITING = 500;
/** Of runs that arrived and are not shown yet. */
const MOST_SHOWN = 1000;
/** With more, the list is read anew when further ones arrive while its top is shown: a tab may stay open for weeks. */

/** @typedef {import("../data/run.js").Run} Run */

export class RunList {
  /** @param {string} query @param {Pick<RunList, "runs"|"chosen"|"changes">|null} before whose runs are shown until the first page is there */
  constructor(query, before) {
    this.query = query;
    this.who = me.peek();
    /** @type {import("../vendor/signals.js").Signal<Run[]>} */
    this.runs = signal(before?.runs.peek() ?? []);
    /** The ids of those that are selected to be compared. @type {import("../vendor/signals.js").Signal<string[]>} */
    this.chosen = before?.chosen ?? signal([]);
    /** How far somebody has scrolled. */
    this.top = 0;
    /** Whether it is still those from before. */
    this.isOld = signal(true);
    /** Those that arrived at the top and are not shown yet. @type {import("../vendor/signals.js").Signal<Run[]>} */
    this.arrived = signal([]);
    this.cursor = signal("");
    this.loading = signal(true);
    /** @type {import("../vendor/signals.js").Signal<Error|null>} */
    this.problem = signal(null);
    /** While a search takes more than a request: the time of creation down to which it has come, in milliseconds. */
    this.searchedTo = signal(0);
    /** Whether somebody has ended the search. */
    this.isStopped = false;
    /** @type {AbortController|undefined} */
    this.search = undefined;
    /** Counts the changes of runs that somebody looks at. @type {import("../vendor/signals.js").Signal<number>} */
    this.changes = signal(before?.changes.peek() ?? 0);
    /** The last change that is in the list, once its first page is there. */
    this.lastId = "";
    /** @type {import("../vendor/signals.js").Signal<import("../core/stream.js").StreamState>} */
    this.stream = signal("live");
    /** Why the server does not say any more what changes. @type {import("../vendor/signals.js").Signal<Error|null>} */
    this.refusal = signal(null);
    this.abort = new AbortController();
    /** Whether what arrives may be shown at once: nobody reads what would move. */
    this.mayMove = () => true;
  }

  /** Reads the first page, or all that has changed since the list was left. */
  open() {
    this.abort = new AbortController();
    this.refusal.value = null;
    if (this.lastId) {
      this.followLive();
      // Where that fails, the list is as it was left.
      this.leaveOut().catch(() => {});
    }
    if (!this.lastId || this.loading.peek()) this.more();
  }

  close() {
    this.abort.abort();
  }

  /** Reads on until there is a further page of runs, or all have been searched, however many requests that takes. */
  async more() {
    this.isStopped = false;
    this.search = new AbortController();
    const { signal: left } = this.abort;
    const abort = AbortSignal.any([left, this.search.signal]);
    batch(() => {
      this.loading.value = true;
      this.problem.value = null;
    });
    try {
      let found = 0;
      do found += await this.readPage(abort); while (this.cursor.peek() && found < PAGE);
    } catch (error) {
      if (left.aborted) return;
      if (!this.isStopped) this.problem.value = errorOf(error);
    }
    batch(() => {
      this.runs.value = this.own();
      this.isOld.value = false;
      this.loading.value = false;
      this.searchedTo.value = 0;
    });
  }

  /** Ends the search, which `more` takes up again. */
  stop() {
    this.isStopped = true;
    this.search?.abort();
  }

  /** @param {number} limit @param {string} cursor */
  pathOf(limit, cursor) {
    const parameters = new URLSearchParams({ limit: String(limit) });
    if (this.query) parameters.set("q", this.query);
    if (cursor) parameters.set("cursor", cursor);
    return `/flow-runs?${parameters}`;
  }

  /** How many runs a further page has. @param {AbortSignal} abort */
  async readPage(abort) {
    const page = await get(this.pathOf(PAGE, this.cursor.peek()), abort);
    batch(() => {
      const known = new Set(page.runs.map((/** @type {Run} */ run) => run.id));
      this.runs.value = [...this.own().filter((run) => !known.has(run.id)), ...page.runs];
      this.isOld.value = false;
      this.cursor.value = page.nextCursor ?? "";
      if (page.nextCursor && page.runs.length < PAGE) this.searchedTo.value = timeOf(page.nextCursor);
    });
    if (!this.lastId) {
      // The stream goes on from the moment that the first page is of: nothing falls between the two.
      this.lastId = String(page.lastChange);
      this.followLive();
    }
    return page.runs.length;
  }

  /** The runs that this query has found so far. */
  own() {
    return this.isOld.peek() ? [] : this.runs.peek();
  }

  async followLive() {
    const parameters = this.query ? `?${new URLSearchParams({ q: this.query })}` : "";
    try {
      await follow(() => `/flow-runs/stream${parameters}`, {
        lastId: this.lastId, abort: this.abort.signal,
        onState: (state) => { this.stream.value = state; },
        onFrames: (frames) => {
          this.lastId = frames.at(-1)?.id || this.lastId;
          this.changes.value += 1;
          const told = frames.map((frame) => ({ event: frame.event, run: parse(frame.data) }));
          this.take(told.filter((each) => each.event === "run").map((each) => each.run));
          this.leave(told.filter((each) => each.event === "gone").map((each) => each.run.id));
        },
      });
    } catch (error) {
      // Without a stream the list is as of now.
      batch(() => {
        this.stream.value = "ended";
        this.refusal.value = errorOf(error);
      });
    }
  }

  /** Takes in runs that are new, or whose state has changed. @param {Run[]} changed */
  take(changed) {
    if (!changed.length) return;
    const now = new Map(changed.map((run) => [run.id, run]));
    batch(() => {
      this.runs.value = this.runs.value.map((run) => now.get(run.id) ?? run);
      const shown = new Set(this.runs.value.map((run) => run.id));
      const oldest = this.runs.value.at(-1)?.id ?? "";
      const further = [...now.values()].filter((run) => !shown.has(run.id) && (run.id > oldest || !this.cursor.value));
      const waiting = this.arrived.value.filter((run) => !now.has(run.id));
      this.arrived.value = [...further, ...waiting].sort((a, b) => (a.id < b.id ? 1 : -1));
      if (this.mayMove() || this.arrived.value.length > MOST_WAITING) this.showArrived();
    });
  }

  /** Takes out what was deleted, or is too old for the query, since the list was left: the stream tells of neither. */
  async leaveOut() {
    const { signal: abort } = this.abort;
    const left = new Set([...this.arrived.peek(), ...this.runs.peek()].map((run) => run.id));
    const [oldest] = [...left].sort();
    let cursor = "";
    do {
      const page = await get(this.pathOf(MOST_IN_PAGE, cursor), abort);
      for (const run of page.runs) left.delete(run.id);
      cursor = page.nextCursor ?? "";
    } while (cursor && oldest && timeOf(cursor) >= Number.parseInt(oldest.replaceAll("-", "").slice(0, 12), 16));
    this.leave([...left]);
  }

  /** Takes runs out that the query does not find any more. @param {string[]} ids */
  leave(ids) {
    if (!ids.length) return;
    batch(() => {
      this.runs.value = this.runs.value.filter((run) => !ids.includes(run.id));
      this.arrived.value = this.arrived.value.filter((run) => !ids.includes(run.id));
    });
  }

  /** Reads the list from its top, and follows it from there. */
  reload() {
    this.close();
    batch(() => {
      this.isOld.value = true;
      this.cursor.value = this.lastId = "";
      this.arrived.value = [];
    });
    this.open();
  }

  /** Shows what has arrived. */
  showArrived() {
    const isLong = this.runs.peek().length + this.arrived.peek().length > MOST_SHOWN;
    if (isLong && !this.top && !this.loading.peek()) {
      this.reload();
      return;
    }
    batch(() => {
      this.runs.value = [...this.arrived.value, ...this.runs.value].sort((a, b) => (a.id < b.id ? 1 : -1));
      this.arrived.value = [];
    });
  }
}

/** When the run was created that a page has come to: a cursor begins with its id, and that with the milliseconds.
 * @param {string} cursor */
function timeOf(cursor) {
  const bytes = atob(cursor.slice(0, 8).replaceAll("-", "+").replaceAll("_", "/"));
  return [...bytes].reduce((ms, byte) => ms * 256 + byte.charCodeAt(0), 0);
}
