// How the selection goes from row to row: up and down what is shown, and to what is worth a look.
import { FAILED, NONE } from "../data/columns.js";
import { isLeaf } from "../data/address.js";
import { lengthOf } from "../data/filter.js";

/** @typedef {import("./model.js").RunModel} RunModel */

/** The entry that is selected; -1 where none is. @param {RunModel} model */
export function selectedEntry(model) {
  return model.selected.peek() < 0 ? -1 : model.view.entryOf(model.selected.peek());
}

/** Selects the entry so many lines further. @param {RunModel} model @param {number} by */
export function move(model, by) {
  const { view } = model;
  if (!view.count) return;
  const at = selectedEntry(model);
  const from = at >= 0 ? at : by > 0 ? -1 : view.count;
  const next = Math.min(view.count - 1, Math.max(0, from + by));
  model.selected.value = view.rowOf(view.entries[next]);
}

/** Opens what is selected, or goes into it where it is open. @param {RunModel} model */
export function unfold(model) {
  const { view } = model;
  const at = selectedEntry(model);
  if (at < 0) return move(model, 1);
  const entry = view.entries[at];
  const group = view.groupOf(entry);
  if (group) view.openGroup(group);
  else if (!model.rows.children[entry]) return;
  else if (view.isOpen(entry)) return move(model, 1);
  else view.setOpen(entry, true);
  model.reshow();
}

/** Closes what is selected, or goes out of it where it is closed. @param {RunModel} model */
export function fold(model) {
  const { rows, view } = model;
  const row = model.selected.peek();
  if (row < 0) return;
  if (rows.children[row] && view.isOpen(row)) {
    view.setOpen(row, false);
    model.reshow();
  } else if (rows.parent[row] !== NONE) model.selected.value = rows.parent[row];
}

/** Opens or closes a row or group. @param {RunModel} model @param {number} entry */
export function toggle(model, entry) {
  const group = model.view.groupOf(entry);
  if (group) model.view.openGroup(group);
  else model.view.setOpen(entry, !model.view.isOpen(entry));
  model.reshow();
}

/** Selects a row, and opens all around it so that it is seen. @param {RunModel} model @param {number} row */
export function reveal(model, row) {
  model.view.reveal(row);
  model.reshow();
  model.selected.value = row;
}

/** Selects the next leaf that failed, from the selected one on and then from the start; false where there is none.
 * @param {RunModel} model */
export function nextError(model) {
  const { rows } = model;
  const from = model.selected.peek();
  const hasFailed = (/** @type {number} */ row) => rows.status[row] === FAILED;
  // A span may fail though none inside of it does.
  const isError = (/** @type {number} */ row) => hasFailed(row) && isLeaf(rows, row) && rows.find(row, hasFailed) === NONE;
  // Containers in which nothing failed are passed over whole.
  const search = (/** @type {number} */ row, /** @type {number} */ until) => {
    while (row !== NONE && row !== until) {
      if (isError(row)) return row;
      row = hasFailed(row) || rows.isRecorded ? rows.following(row) : rows.after(row);
    }
    return row === until && row !== NONE && isError(row) ? row : NONE;
  };
  let found = from < 0 ? NONE : search(rows.following(from), NONE);
  if (found === NONE) found = search(rows.rootFirst, NONE);
  if (found === NONE) return false;
  reveal(model, found);
  return true;
}

/** Selects the leaf that is first by a measure; then, from that one on, the second and so on.
 * @param {RunModel} model @param {"time"|"cost"|"tokens"} measure */
export function most(model, measure) {
  const { rows } = model;
  const now = model.endMs();
  const value = (/** @type {number} */ row) => measure === "time" ? lengthOf(rows, row, now)
    : measure === "cost" ? rows.cost[row] || 0 : rows.tokens[row];
  const selected = model.selected.peek();
  const bound = model.lastMost?.row === selected && model.lastMost.measure === measure ? value(selected) : Infinity;
  let best = NONE;
  for (let row = 0; row < rows.count; row += 1) {
    if (!rows.isAttempt(row) || row === selected) continue;
    const here = value(row);
    const isBelow = here < bound || (here === bound && row > selected);
    if (here > 0 && isBelow && (best === NONE || here > value(best))) best = row;
  }
  if (best === NONE) return false;
  model.lastMost = { row: best, measure };
  reveal(model, best);
  return true;
}
