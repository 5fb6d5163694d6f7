// The rows of a run's tree as columns of typed arrays, which take a tenth of what objects would, with links.
// Rows come in pages of an outline, in pre-order, and later one by one as events tell of them. Pure.

export const KINDS = ["step", "loop", "parallel", "condition", "iteration", "branch", "attempt",
  "llm", "tool", "retrieval", "embedding", "agent", "chain", "code", "guardrail", "other", "placeholder"];
export const STATUSES = ["skipped", "completed", "retried", "cancelled", "waiting", "running", "failed"];
/** Each status is worse than the ones before it. */
export const [STEP, LOOP, PARALLEL, CONDITION, ITERATION, BRANCH, ATTEMPT, LLM] = [...KINDS.keys()];
/** Those from `LLM` on are kinds of spans, of which recorded runs are made. */
export const [SKIPPED, COMPLETED, RETRIED, CANCELLED, WAITING, RUNNING, FAILED] = [...STATUSES.keys()];

export const NONE = -1;
const FIRST_CAPACITY = 1024;

/** What the outline of a recorded run has beside its columns. @typedef {{stepIds: string[], models: (string|null)[], context?: number[],
 *   cycles?: number[], noted?: number[], retryOf?: [number, number][], unattributed?: [number, number, string|null][]}} SpanMarks */
/** @typedef {{seq: number, rowCount: number, first: number, names: string[], kinds: string[], statuses: string[], cut: number[], recorded?: SpanMarks,
 *   columns: Record<"parent"|"kind"|"name"|"index"|"attempt"|"attempts"|"position"|"status"|"start"|"end"|"tokens", number[]>
 *     & {cost: (string|null)[]}}} OutlinePage */
/** @typedef {Int32Array|Uint8Array|Uint16Array|Float64Array} Column */

/** All columns are as long as `capacity`; the first `count` of each are in use. */
export class Rows {
  parent = new Int32Array(FIRST_CAPACITY);
  first = new Int32Array(FIRST_CAPACITY);
  last = new Int32Array(FIRST_CAPACITY);
  next = new Int32Array(FIRST_CAPACITY);
  prev = new Int32Array(FIRST_CAPACITY);
  children = new Int32Array(FIRST_CAPACITY);
  /** Leaves below that go on. */
  open = new Int32Array(FIRST_CAPACITY);
  kind = new Uint8Array(FIRST_CAPACITY);
  status = new Uint8Array(FIRST_CAPACITY);
  depth = new Uint16Array(FIRST_CAPACITY);
  name = new Int32Array(FIRST_CAPACITY);
  index = new Int32Array(FIRST_CAPACITY);
  attempt = new Int32Array(FIRST_CAPACITY);
  attempts = new Int32Array(FIRST_CAPACITY);
  position = new Int32Array(FIRST_CAPACITY);
  /** Milliseconds since the run started, -1 for none. */
  start = new Float64Array(FIRST_CAPACITY);
  end = new Float64Array(FIRST_CAPACITY);
  tokens = new Float64Array(FIRST_CAPACITY);
  /** NaN where nobody knows it. */
  cost = new Float64Array(FIRST_CAPACITY);

  /** Rows of attempts whose model was stopped at its limit of tokens. @type {Set<number>} */
  cut = new Set();

  /** Whether the rows are spans of another program; the marks below are of such alone. */
  isRecorded = false;
  /** Above the entry, and of no generative AI. @type {Set<number>} */
  context = new Set();
  /** A cycle was cut above. @type {Set<number>} */
  cycles = new Set();
  /** Their steps have notes. @type {Set<number>} */
  noted = new Set();
  /** Of rows that probably repeat another that one. @type {Map<number, number>} */
  retryOf = new Map();
  /** Tokens and cost that a row tells beyond those inside of it, and that no sum has. @type {Map<number, [number, string|null]>} */
  unattributed = new Map();

  count = 0;
  capacity = FIRST_CAPACITY;
  /** The last end of all rows. */
  lastEnd = 0;
  /** @type {string[]} */
  names = [];
  /** For each name the id of its step, which differs for spans, and the model. @type {string[]} */
  stepIds = [];
  /** @type {(string|null)[]} */
  models = [];
  /** @type {Map<string, number>} */
  nameIds = new Map();
  rootFirst = NONE;
  rootLast = NONE;

  /** Takes in a page of an outline. Throws RangeError where it does not follow on what is there.
   * @param {OutlinePage} page */
  addPage(page) {
    if (page.first !== this.count) throw new RangeError(`row ${page.first} does not follow on ${this.count} rows`);
    const { parent, kind, name, index, attempt, attempts, position, status, start, end, tokens, cost } = page.columns;
    const kinds = page.kinds.map((each) => KINDS.indexOf(each));
    const statuses = page.statuses.map((each) => STATUSES.indexOf(each));
    const { recorded } = page;
    this.isRecorded ||= recorded !== undefined;
    const names = page.names.map((each, at) => this.nameId(each, recorded?.stepIds[at], recorded?.models[at]));
    this.reserve(this.count + parent.length);
    for (let at = 0; at < parent.length; at += 1) {
      const row = this.link(parent[at], kinds[kind[at]], names[name[at]], this.lastOf(parent[at]));
      this.index[row] = index[at];
      this.attempt[row] = attempt[at];
      this.attempts[row] = attempts[at];
      this.position[row] = position[at];
      this.status[row] = statuses[status[at]];
      this.start[row] = start[at];
      this.end[row] = end[at];
      if (end[at] > this.lastEnd) this.lastEnd = end[at];
      this.tokens[row] = tokens[at];
      this.cost[row] = cost[at] === null ? NaN : Number(cost[at]);
    }
    for (const row of page.cut) this.cut.add(row);
    for (const name of /** @type {const} */ (["context", "cycles", "noted"])) for (const row of recorded?.[name] ?? []) this[name].add(row);
    for (const [row, earlier] of recorded?.retryOf ?? []) this.retryOf.set(row, earlier);
    for (const [row, ...told] of recorded?.unattributed ?? []) this.unattributed.set(row, told);
    for (let row = page.first; row < this.count; row += 1) {
      if (this.children[row] === 0 && this.isGoing(row)) this.addOpen(row, 1);
    }
  }

  /** A new row inside of `parent`, put before the siblings that `rank` puts after it; its number.
   * @param {number} parent @param {number} kind @param {string} name @param {number} rank
   * @param {(row: number) => number} rankOf */
  insert(parent, kind, name, rank, rankOf) {
    let before = this.lastOf(parent);
    while (before !== NONE && rankOf(before) > rank) before = this.prev[before];
    this.reserve(this.count + 1);
    const row = this.link(parent, kind, this.nameId(name), before);
    this.index[row] = NONE;
    this.start[row] = this.end[row] = -1;
    this.cost[row] = NaN;
    this.status[row] = SKIPPED;
    return row;
  }

  /** The first row inside of one; of -1 the first at the top. @param {number} row */
  firstOf(row) {
    return row === NONE ? this.rootFirst : this.first[row];
  }

  /** @param {number} row */
  lastOf(row) {
    return row === NONE ? this.rootLast : this.last[row];
  }

  /** Whether it has not ended. @param {number} row */
  isGoing(row) {
    return this.status[row] === RUNNING || this.status[row] === WAITING;
  }

  /** Whether something has not ended. */
  goesOn() {
    // The state of a span is its own.
    if (this.isRecorded) return this.status.subarray(0, this.count).includes(RUNNING);
    return this.find(NONE, (row) => this.isGoing(row)) !== NONE;
  }

  /** The last end, 0 where nothing has ended. */
  latest() {
    // A span may end later than the one that it is in.
    let latest = this.isRecorded ? this.lastEnd : 0;
    for (let row = this.rootFirst; row !== NONE; row = this.next[row]) latest = Math.max(latest, this.end[row]);
    return latest;
  }

  /** @param {number} row */
  nameOf(row) {
    return this.names[this.name[row]];
  }

  /** The row inside of `parent` that a test finds. @param {number} parent @param {(row: number) => boolean} test */
  find(parent, test) {
    for (let row = this.firstOf(parent); row !== NONE; row = this.next[row]) if (test(row)) return row;
    return NONE;
  }

  /** The row that follows in the order of the tree; -1 at the end. @param {number} row */
  following(row) {
    if (this.first[row] !== NONE) return this.first[row];
    return this.after(row);
  }

  /** The row that follows on all that is inside of this one. @param {number} row */
  after(row) {
    for (let at = row; at !== NONE; at = this.parent[at]) if (this.next[at] !== NONE) return this.next[at];
    return NONE;
  }

  /** Counts a leaf that begins or ends for all that it is inside of. @param {number} row @param {number} by */
  addOpen(row, by) {
    for (let at = row; at !== NONE; at = this.parent[at]) this.open[at] += by;
  }

  /** @param {number} row */
  stepIdOf(row) {
    return this.stepIds[this.name[row]];
  }

  /** Whether the row is that of a span, or of one that was not received. @param {number} row */
  isSpan(row) {
    return this.kind[row] >= LLM;
  }

  /** Whether the time of a row is that of one attempt, or of a span with none inside. @param {number} row */
  isAttempt(row) {
    return this.kind[row] === ATTEMPT || (this.first[row] === NONE && (this.kind[row] === STEP || this.isSpan(row)));
  }

  /** @param {string} name @param {string} [stepId] @param {string|null} [model] */
  nameId(name, stepId = name, model = null) {
    const key = stepId === name && model === null ? name : `${name}\n${stepId}\n${model}`;
    let id = this.nameIds.get(key);
    if (id === undefined) {
      id = this.names.push(name) - 1;
      this.stepIds.push(stepId);
      this.models.push(model);
      this.nameIds.set(key, id);
    }
    return id;
  }

  /** @param {number} parent @param {number} kind @param {number} name @param {number} before its sibling */
  link(parent, kind, name, before) {
    const row = this.count;
    this.count += 1;
    this.parent[row] = parent;
    this.kind[row] = kind;
    this.name[row] = name;
    this.depth[row] = parent === NONE ? 0 : this.depth[parent] + 1;
    this.first[row] = this.last[row] = NONE;
    this.prev[row] = before;
    const next = before === NONE ? this.firstOf(parent) : this.next[before];
    this.next[row] = next;
    if (before !== NONE) this.next[before] = row;
    else if (parent === NONE) this.rootFirst = row;
    else this.first[parent] = row;
    if (next !== NONE) this.prev[next] = row;
    else if (parent === NONE) this.rootLast = row;
    else this.last[parent] = row;
    if (parent !== NONE) this.children[parent] += 1;
    return row;
  }

  /** @param {number} wanted */
  reserve(wanted) {
    if (wanted <= this.capacity) return;
    this.capacity = Math.max(wanted, 2 * this.capacity);
    for (const [name, column] of Object.entries(this)) {
      if (!ArrayBuffer.isView(column)) continue;
      const Type = /** @type {new (length: number) => Column} */ (column.constructor);
      const larger = new Type(this.capacity);
      larger.set(/** @type {Column} */ (column));
      Object.assign(this, { [name]: larger });
    }
  }
}
