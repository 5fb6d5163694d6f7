import assert from "node:assert/strict";
import { test } from "node:test";
import { completion, has, isUnfinished, namesIn, quote, terms, toggled, withFields, wrongTerm } from "../../src/runglass/server/viewer/data/search.js";

test("terms are parted by spaces, but not inside of quotes", () => {
  const text = 'status:failed  -text:"two words" bare "more words" duration:>3s';
  assert.deepEqual(terms(text).map((term) => [term.negated, term.field, term.value]), [
    [false, "status", "failed"], [true, "text", '"two words"'], [false, "", "bare"], [false, "", '"more words"'],
    [false, "duration", ">3s"],
  ]);
  for (const term of terms(text)) assert.equal(text.slice(term.start, term.end), term.text);
});

test("a quote may be escaped, and one without an end goes to the end", () => {
  assert.deepEqual(terms('text:"a \\" b" c').map((term) => term.text), ['text:"a \\" b"', "c"]);
  assert.deepEqual(terms('text:"a b').map((term) => term.text), ['text:"a b']);
});

test("a value is quoted where a query would read more than one in it", () => {
  assert.deepEqual(["beta", "a b", "a,b", 'a"b\\'].map(quote), ["beta", '"a b"', '"a,b"', '"a\\"b\\\\"']);
});

test("completion offers fields, then their values", () => {
  const offered = (/** @type {string} */ text, known = {}) => completion(text, text.length, known).options.map((each) => each.text);
  assert.ok(offered("").includes("status:"));
  assert.deepEqual(offered("sta"), ["status:"]);
  assert.deepEqual(offered("x -sta"), ["-status:"]);
  assert.deepEqual(offered("status:fa"), ["status:failed"]);
  assert.deepEqual(offered("status:failed,can"), ["status:failed,cancelled"]);
  assert.deepEqual(offered("flow:gr", { flows: ["grade-3", "other"] }), ["flow:grade-3"]);
  assert.deepEqual(offered("session:x"), []);
});

test("what every object has is no field", () => {
  assert.deepEqual(completion("constructor:x", 13).options, []);
  assert.equal(withFields("constructor:x", { since: "1h" }), "constructor:x since:1h");
});

test("completion replaces the term that the caret is in, and no other", () => {
  const text = "since:24h sta text:x";
  const { start, end } = completion(text, 13);
  assert.equal(text.slice(0, start) + "status:" + text.slice(end), "since:24h status: text:x");
});

test("a switch sets a term, replaces another value of its field, and takes it out again", () => {
  assert.equal(toggled("", "status:failed"), "status:failed");
  assert.equal(toggled("status:running since:1h", "status:failed"), "since:1h status:failed");
  assert.equal(toggled("since:1h status:failed", "status:failed"), "since:1h");
  assert.equal(toggled("-status:failed", "status:running"), "-status:failed status:running");
  assert.ok(has("a status:failed", "status:failed"));
  assert.ok(!has("-status:failed", "status:failed"));
});

test("a time that is dragged replaces the one that was there", () => {
  assert.equal(withFields("since:24h status:failed", { since: "A", until: "B" }), "status:failed since:A until:B");
  assert.equal(withFields("since:24h x", { since: null }), "x");
});

test("a term that is being typed is unfinished, and nothing else is", () => {
  const known = { flows: ["add-up", "adder"] };
  for (const text of [
    "s", "-sta", "status", "status:", "x status:fai", "status:failed,", "status:failed,c", "flow:add", 'text:"no ref', "duration:>",
    "duration:>3", "since:2", "since:2026-11-2", "cost:0.", "tokens:1..", "-", "flow:adder or",
  ]) assert.ok(isUnfinished(text, known), text);
  for (const text of [
    "", "refund", "status:failed", "status:failed,cancelled", "status:fai ", "flow:adder", "flow:none", 'text:"no refund"', "duration:>3s",
    "since:24h", "since:2026-11-20", "since:2026-11-20T14:30", "cost:>0.01", "statsu:failed", "constructor:x", "error:CODE", "session:thread-7",
  ]) assert.ok(!isUnfinished(text, known), text);
});

test("what an error names is found in the text, by characters and behind leading spaces", () => {
  const found = (/** @type {string} */ text, /** @type {number} */ position, /** @type {string} */ term) => {
    const place = wrongTerm(text, { position, term });
    return place && text.slice(place.start, place.end);
  };
  assert.equal(found("  a statsu:x", 2, "statsu:x"), "statsu:x");
  assert.equal(found("\u{1f600} statsu:x", 2, "statsu:x"), "statsu:x");
  assert.equal(found("another text", 2, "statsu:x"), null);
  assert.equal(wrongTerm("a", {}), null);
});

test("steps and models that a query names are found in it, each by itself", () => {
  assert.deepEqual(namesIn('status:failed step:a,"b c" -step:d model:gpt-9 text:"step:e"'), [
    { field: "step", name: "a" }, { field: "step", name: "b c" }, { field: "model", name: "gpt-9" },
  ]);
  assert.deepEqual(namesIn("step:"), []);
});
