// The query language as the query box needs it: which terms there are, and what may come next.
// What a query means, and whether it is right, is for the server to say. Pure.

/** @typedef {{start: number, end: number, text: string, field: string, value: string, negated: boolean}} Term */
/** @typedef {{text: string, about: string}} Option */
/** @typedef {{start: number, end: number, options: Option[]}} Completion */

/** The fields, with what stands in them. */
export const FIELDS = {
  status: "pending, running, paused, completed, failed or cancelled",
  flow: "slug or id of a flow",
  version: "version number, 0 is the draft",
  trigger: "how it was started: api, job, step, replay",
  kind: "executed, recorded or plain",
  session: "session id",
  service: "service that sent it",
  release: "release of that service",
  environment: "environment of that service",
  user: "user, as its sender names it",
  tag: "one of its tags",
  since: "24h, 7d, or a date",
  until: "1h, or a date",
  duration: ">3s, 842ms..2m",
  cost: ">0.01, in dollars",
  tokens: ">1000",
  step: "id of a step that ran",
  model: "a model that was called",
  error: "error code or message text",
  text: "text in kept content",
};

const VALUES = new Map(Object.entries({
  status: ["failed", "running", "completed", "paused", "cancelled", "pending"],
  trigger: ["api", "job", "step", "replay"],
  kind: ["recorded", "executed", "plain"],
  since: ["1h", "24h", "7d", "30d"],
  until: ["1h", "24h", "7d"],
  duration: [">1s", ">10s", ">1m"],
  cost: [">0.01", ">0.1", ">1"],
  tokens: [">1000", ">10000"],
}));

/** The terms of a query, which spaces part; inside quotes they do not. @param {string} text @returns {Term[]} */
export function terms(text) {
  const found = [];
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text[at])) {
      at += 1;
      continue;
    }
    const start = at;
    let quoted = false;
    while (at < text.length && (quoted || !/\s/.test(text[at]))) {
      if (text[at] === "\\" && quoted) at += 1;
      else if (text[at] === '"') quoted = !quoted;
      at += 1;
    }
    found.push(termOf(text.slice(start, at), start));
  }
  return found;
}

const MOST_NAMES = 4;

/** Steps and models that a query asks for by name, the first ones of many. @param {string} query */
export function namesIn(query) {
  const asked = terms(query).filter(({ field, negated }) => !negated && (field === "step" || field === "model"));
  const named = asked.flatMap(({ field, value }) => value.split(",").map((each) => ({ field, name: each.replace(/["\\]/g, "") })));
  return named.filter(({ name }) => name).slice(0, MOST_NAMES);
}

/** @param {string} text @param {number} start @returns {Term} */
function termOf(text, start) {
  const negated = text.startsWith("-") && text.length > 1;
  const body = negated ? text.slice(1) : text;
  const colon = body.indexOf(":");
  const isField = colon > 0 && /^[a-z]+$/i.test(body.slice(0, colon));
  return {
    start, end: start + text.length, text, negated,
    field: isField ? body.slice(0, colon).toLowerCase() : "",
    value: isField ? body.slice(colon + 1) : body,
  };
}

/** What may stand at the caret in place of the term that it is in.
 * @param {string} text @param {number} caret @param {{flows?: string[]}} known @returns {Completion} */
export function completion(text, caret, known = {}) {
  const term = terms(text).find((each) => each.start < caret && caret <= each.end);
  const start = term?.start ?? caret;
  const typed = text.slice(start, caret);
  const sign = typed.startsWith("-") ? "-" : "";
  const { field, value } = termOf(typed, start);
  if (field) {
    const values = field === "flow" ? (known.flows ?? []) : (VALUES.get(field) ?? []);
    const before = value.includes(",") ? value.slice(0, value.lastIndexOf(",") + 1) : "";
    const part = value.slice(before.length).toLowerCase();
    const options = values
      .filter((each) => each.toLowerCase().includes(part) && each !== value)
      .map((each) => ({ text: `${sign}${field}:${before}${quote(each)}`, about: "" }));
    return { start, end: term?.end ?? caret, options: options.slice(0, 12) };
  }
  const part = typed.slice(sign.length).toLowerCase();
  const options = Object.entries(FIELDS)
    .filter(([name]) => name.startsWith(part))
    .map(([name, about]) => ({ text: `${sign}${name}:`, about }));
  return { start, end: term?.end ?? caret, options };
}

const UNIT = /\d[a-z]+$/i;
const DATE = /^\d{4}-\d\d-\d\d($|T\d\d:\d\d)/;
/** What a value looks like once it is whole. @type {Map<string, RegExp>} */
const WHOLE = new Map(Object.entries({
  duration: UNIT, since: new RegExp(`${UNIT.source}|${DATE.source}`, "i"), until: new RegExp(`${UNIT.source}|${DATE.source}`, "i"),
  // Another program may name a session by any text.
  session: /^.{36}$|^(?![0-9a-f]{8}(-|$))/,
}));

/** Whether the query ends in a term that is certainly not typed to its end yet.
 * @param {string} text @param {{flows?: string[]}} [known] */
export function isUnfinished(text, known = {}) {
  const last = terms(text).at(-1);
  if (!last || last.end < text.length) return false;
  const { field, value } = last;
  if ((value.match(/(?<!\\)"/g)?.length ?? 0) % 2) return true;
  if (/(^|[:,<>=.-])$/.test(value)) return true;
  // The server refuses it as an operator, and more words than one begin with it.
  if (!field && value.toLowerCase() === "or") return true;
  if (!field) return Object.keys(FIELDS).some((name) => name.startsWith(value.toLowerCase()));
  const part = value.slice(value.lastIndexOf(",") + 1);
  const whole = field === "flow" ? known.flows : field === "status" || field === "trigger" ? VALUES.get(field) : undefined;
  if (whole) return !whole.includes(part) && whole.some((each) => each.startsWith(part.toLowerCase()));
  return WHOLE.has(field) && !WHOLE.get(field)?.test(part);
}

/** Where in a text the term is that an error names, by a position that counts characters; null where it is not there.
 * @param {string} text @param {{position?: number, term?: string}} detail */
export function wrongTerm(text, { position, term }) {
  if (position === undefined || !term) return null;
  const lead = text.length - text.trimStart().length;
  const start = lead + [...text.trimStart()].slice(0, position).join("").length;
  return text.startsWith(term, start) ? { start, end: start + term.length } : null;
}

/** The query with the term, or without it if it has it. @param {string} text @param {string} wanted */
export function toggled(text, wanted) {
  const all = terms(text);
  if (all.some((each) => each.text === wanted)) {
    return all.filter((each) => each.text !== wanted).map((each) => each.text).join(" ");
  }
  const field = termOf(wanted, 0).field;
  const others = all.filter((each) => !field || each.field !== field || each.negated);
  return [...others.map((each) => each.text), wanted].join(" ");
}

/** The query with each of these fields set anew; a null takes it out.
 * @param {string} text @param {Record<string, string|null>} fields */
export function withFields(text, fields) {
  const others = terms(text).filter((each) => !Object.hasOwn(fields, each.field)).map((each) => each.text);
  const set = Object.entries(fields).filter(([, value]) => value !== null).map(([name, value]) => `${name}:${value}`);
  return [...others, ...set].join(" ");
}

/** Whether the query has this term. @param {string} text @param {string} wanted */
export function has(text, wanted) {
  return terms(text).some((each) => each.text === wanted);
}

/** A value as a query has it. @param {string} value */
export function quote(value) {
  return /[\s",]/.test(value) ? `"${value.replace(/(["\\])/g, "\\$1")}"` : value;
}
