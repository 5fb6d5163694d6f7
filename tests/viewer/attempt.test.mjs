import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mock, test } from "node:test";
import { NONE, Rows } from "../../src/runglass/server/viewer/data/columns.js";

// As the modules that talk to a server find a browser.
Object.assign(globalThis, { location: new URL("http://localhost/runs/r") });
const { AttemptReader } = await import("../../src/runglass/server/viewer/run/attempt.js");

test("an attempt that was asked for before its run ended is read anew after the end", async (context) => {
  const { outline } = JSON.parse(readFileSync(new URL("runs/failed.json", import.meta.url), "utf8"));
  const rows = new Rows();
  rows.addPage(outline);
  let isOver = false;
  const model = { rows, path: "/flow-runs/r", hasEnded: () => isOver, attemptOf: String, stateOf: () => String(isOver) };
  const reader = new AttemptReader(/** @type {import("../../src/runglass/server/viewer/run/model.js").RunModel} */ (/** @type {unknown} */ (model)));
  context.after(() => mock.reset());
  mock.method(globalThis, "setTimeout", setImmediate);
  /** Reads the only attempt, of which the server says that it has this status. @param {string} status */
  const read = async (status, during = () => {}) => {
    mock.method(globalThis, "fetch", async () => {
      during();
      return new Response(JSON.stringify({ status }));
    });
    reader.read(rows.rootFirst);
    while (reader.now.peek().loading) await new Promise((next) => setImmediate(next));
    return reader.now.peek().value.status;
  };
  assert.notEqual(rows.rootFirst, NONE);
  assert.equal(await read("running", () => { isOver = true; }), "running");
  assert.equal(await read("completed"), "completed");
});
