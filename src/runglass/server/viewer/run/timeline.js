// The rows on the axis of time, or their cost or tokens as bars: one canvas, painted anew for each frame that differs.
import { ATTEMPT, CANCELLED, FAILED, ITERATION, NONE, RETRIED, RUNNING, SKIPPED, STEP, WAITING } from "../data/columns.js";
import { duration, round, short, shortMoney, soFar } from "../data/format.js";
import { ROW_PX } from "./tree_rows.js";

export const AXIS_PX = 24;
const BAR_PX = 10;
const LEAST_PX = 2;
const FONT = "11px system-ui, sans-serif";
const COLOURS = ["text", "muted", "line", "line-2", "bg", "bg-2", "bg-3", "accent", "accent-bg", "running", "completed-bar", "failed", "retried", "waiting"];

/** What paints on a canvas. Throws where the browser has no memory for it. @param {HTMLCanvasElement} canvas */
export function penOf(canvas) {
  const pen = canvas.getContext("2d");
  if (!pen) throw new Error("The browser gives no canvas");
  return pen;
}

/** The colours of the page, read anew where the theme has changed. @param {HTMLElement} element */
export function coloursOf(element) {
  // All of them are there before the first is read: the browser works them out at once.
  const probe = document.createElement("span");
  probe.append(...COLOURS.map((name) => {
    const one = document.createElement("span");
    one.style.color = `var(--${name})`;
    return one;
  }));
  element.append(probe);
  const colours = Object.fromEntries(COLOURS.map((name, at) => [name, getComputedStyle(probe.children[at]).color]));
  probe.remove();
  return colours;
}

/** @typedef {{model: import("./model.js").RunModel, axis: import("../data/time_axis.js").TimeAxis, top: number,
 *   height: number, width: number, by: string, colours: Record<string, string>, hover: number}} Scene */

/** Paints the canvas. @param {CanvasRenderingContext2D} pen @param {Scene} scene */
export function paint(pen, scene) {
  const { model, axis, top, height, width, by, colours } = scene;
  const { view } = model;
  pen.clearRect(0, 0, width, height);
  pen.font = FONT;
  pen.textBaseline = "middle";
  if (by === "time") paintGrid(pen, scene);
  const first = Math.floor(top / ROW_PX);
  const last = Math.min(view.count, Math.ceil((top + height) / ROW_PX));
  const selected = model.selected.peek();
  const largest = by === "time" ? 0 : largestOf(model, by);
  const nowMs = model.endMs();
  pen.save();
  pen.beginPath();
  pen.rect(0, AXIS_PX, width, height);
  pen.clip();
  for (let at = first; at < last; at += 1) {
    const entry = view.entries[at];
    const y = at * ROW_PX - top + AXIS_PX;
    const group = view.groupOf(entry);
    const isSelected = entry === selected || (group !== undefined && selected >= 0 && view.isIn(group, selected));
    if (isSelected || at === scene.hover) {
      pen.fillStyle = isSelected ? colours["accent-bg"] : colours["bg-2"];
      pen.fillRect(0, y, width, ROW_PX);
    }
    if (by !== "time") paintAmount(pen, scene, entry, y, largest);
    else if (group) paintGroup(pen, scene, group, y, nowMs);
    else paintRow(pen, scene, entry, y, nowMs);
  }
  pen.restore();
  pen.fillStyle = colours.muted;
  if (by !== "time") pen.fillText(`${by}, of the whole run`, 8, AXIS_PX / 2);
  pen.fillStyle = colours.line;
  pen.fillRect(0, AXIS_PX - 1, width, 1);
}

/** @param {CanvasRenderingContext2D} pen @param {Scene} scene */
function paintGrid(pen, { axis, height, width, colours }) {
  for (const { ms, x } of axis.ticks()) {
    pen.fillStyle = colours.line;
    pen.fillRect(Math.round(x), AXIS_PX, 1, height);
    const text = ms === 0 ? "0" : round(ms);
    if (x + pen.measureText(text).width + 4 > width) continue;
    pen.fillStyle = colours.muted;
    pen.fillText(text, Math.round(x) + 4, AXIS_PX / 2);
  }
  for (const { from, to } of axis.folding.idle) {
    const [left, right] = [axis.x(from), axis.x(to)];
    pen.fillStyle = colours["bg-3"];
    pen.fillRect(left, AXIS_PX, Math.max(2, right - left), height);
  }
}

/** @param {CanvasRenderingContext2D} pen @param {Scene} scene @param {number} row @param {number} y @param {number} nowMs */
function paintRow(pen, scene, row, y, nowMs) {
  const { rows, view } = scene.model;
  const isStep = rows.kind[row] === STEP;
  if (rows.start[row] < 0) {
    if (rows.status[row] === SKIPPED) paintSkipped(pen, scene, row, y);
    return;
  }
  const going = rows.end[row] < 0;
  const end = going ? nowMs : rows.end[row];
  if (isStep && rows.children[row] && !view.isOpen(row)) {
    // A folded step shows its attempts, and the times between them in which it waited.
    pen.fillStyle = scene.colours.retried;
    const [left, right] = [scene.axis.x(rows.start[row]), scene.axis.x(end)];
    for (let x = Math.max(0, left); x < Math.min(scene.width, right); x += 4) pen.fillRect(x, y + ROW_PX / 2 - 0.5, 2, 1);
    for (let each = rows.first[row]; each !== NONE; each = rows.next[each]) {
      bar(pen, scene, rows.start[each], rows.end[each] < 0 ? nowMs : rows.end[each], rows.status[each], y);
    }
    label(pen, scene, rows.start[row], end, y, going);
  } else if (rows.isAttempt(row)) {
    bar(pen, scene, rows.start[row], end, rows.status[row], y);
    label(pen, scene, rows.start[row], end, y, going);
  } else {
    span(pen, scene, rows.start[row], end, rows.status[row], y);
    if (rows.kind[row] !== ITERATION || !view.isOpen(row)) label(pen, scene, rows.start[row], end, y, going);
  }
}

/** A leaf: a full bar, whose status is in its shape as well. @param {CanvasRenderingContext2D} pen @param {Scene} scene
 * @param {number} start @param {number} end @param {number} status @param {number} y */
function bar(pen, scene, start, end, status, y) {
  const { axis, width, colours } = scene;
  const x = axis.x(start);
  const right = Math.max(x + LEAST_PX, axis.x(end));
  if (right < 0 || x > width) return beyond(pen, scene, right < 0, y);
  const [left, length] = [Math.max(-4, x), Math.min(width + 4, right) - Math.max(-4, x)];
  const middle = y + (ROW_PX - BAR_PX) / 2;
  pen.fillStyle = { [FAILED]: colours.failed, [RETRIED]: colours.retried, [RUNNING]: colours.running }[status] ?? colours["completed-bar"];
  if (status === WAITING) stripes(pen, left, middle, length, colours.waiting);
  else if (status === CANCELLED) cutBar(pen, left, middle, length, colours["completed-bar"], colours["bg-3"]);
  else if (status === RETRIED) {
    // Hollow: it came to nothing.
    pen.strokeStyle = colours.retried;
    pen.strokeRect(left + 0.5, middle + 0.5, Math.max(1, length - 1), BAR_PX - 1);
    pen.globalAlpha = 0.25;
    pen.fillRect(left, middle, length, BAR_PX);
    pen.globalAlpha = 1;
  } else pen.fillRect(left, middle, length, BAR_PX);
  if (status === FAILED) {
    // Higher than the others, so that it is seen however short it is.
    pen.fillRect(Math.min(width - 2, right - 2), y + 3, 2, ROW_PX - 6);
  }
  if (status === RUNNING) {
    pen.beginPath();
    pen.moveTo(right, middle);
    pen.lineTo(right + 5, middle + BAR_PX / 2);
    pen.lineTo(right, middle + BAR_PX);
    pen.fill();
  }
}

/** What was cut off: hollow, and open where it would have gone on. @param {CanvasRenderingContext2D} pen @param {number} x
 * @param {number} y @param {number} length @param {string} colour @param {string} fill */
function cutBar(pen, x, y, length, colour, fill) {
  const right = x + Math.max(1, length - 0.5);
  pen.fillStyle = fill;
  pen.fillRect(x, y, right - x, BAR_PX);
  pen.strokeStyle = colour;
  pen.beginPath();
  pen.moveTo(right, y + 0.5);
  pen.lineTo(x + 0.5, y + 0.5);
  pen.lineTo(x + 0.5, y + BAR_PX - 0.5);
  pen.lineTo(right, y + BAR_PX - 0.5);
  pen.moveTo(right - 2, y + BAR_PX + 2);
  pen.lineTo(right + 2, y - 2);
  pen.stroke();
}

/** A container: a bracket around what is inside of it. @param {CanvasRenderingContext2D} pen @param {Scene} scene
 * @param {number} start @param {number} end @param {number} status @param {number} y */
function span(pen, scene, start, end, status, y) {
  const { axis, width, colours } = scene;
  const x = axis.x(start);
  const right = Math.max(x + LEAST_PX, axis.x(end));
  if (right < 0 || x > width) return beyond(pen, scene, right < 0, y);
  pen.fillStyle = status === FAILED ? colours.failed : status === RUNNING ? colours.running : colours["completed-bar"];
  const left = Math.max(0, x);
  const length = Math.min(width, right) - left;
  pen.fillRect(left, y + 9, length, 3);
  if (x >= 0) pen.fillRect(x, y + 9, 2, 7);
  if (right <= width && status !== RUNNING) pen.fillRect(right - 2, y + 9, 2, 7);
}

/** @param {CanvasRenderingContext2D} pen @param {Scene} scene @param {import("../data/view.js").Group} group @param {number} y @param {number} nowMs */
function paintGroup(pen, scene, group, y, nowMs) {
  const { rows } = scene.model;
  let [from, to] = [Infinity, 0];
  // A long group is sampled: its line shows where it is, and not each of its iterations.
  const step = Math.max(1, Math.floor(group.count / 400));
  let skip = 0;
  for (let row = group.first; ; row = rows.next[row]) {
    if (rows.start[row] >= 0) {
      from = Math.min(from, rows.start[row]);
      to = Math.max(to, rows.end[row] < 0 ? nowMs : rows.end[row]);
      if (skip === 0) {
        const x = scene.axis.x(rows.start[row]);
        const length = Math.max(1, scene.axis.x(rows.end[row] < 0 ? nowMs : rows.end[row]) - x - 0.5);
        pen.fillStyle = scene.colours["completed-bar"];
        pen.globalAlpha = 0.5;
        pen.fillRect(x, y + 9, length, 6);
        pen.globalAlpha = 1;
      }
      skip = (skip + 1) % step;
    }
    if (row === group.last) break;
  }
  if (to > 0) label(pen, scene, from, to, y);
}

/** @param {CanvasRenderingContext2D} pen @param {Scene} scene @param {number} row @param {number} y */
function paintSkipped(pen, scene, row, y) {
  // It has no time of its own: a hollow dot where what it is inside of began.
  const { rows } = scene.model;
  let start = -1;
  for (let up = rows.parent[row]; up !== NONE && start < 0; up = rows.parent[up]) start = rows.start[up];
  const x = scene.axis.x(Math.max(0, start));
  if (x < 0 || x > scene.width) return;
  pen.strokeStyle = scene.colours.muted;
  pen.beginPath();
  pen.arc(x + 5, y + ROW_PX / 2, 3, 0, 7);
  pen.stroke();
}

/** How long it took, beside the bar where there is room. @param {CanvasRenderingContext2D} pen @param {Scene} scene
 * @param {number} start @param {number} end @param {number} y @param {boolean} [going] */
function label(pen, scene, start, end, y, going = false) {
  const { axis, width, colours } = scene;
  const [left, right] = [axis.x(start), axis.x(end)];
  if (right < 0 || left > width) return;
  const text = going ? soFar(end - start) : duration(end - start);
  const length = pen.measureText(text).width;
  pen.fillStyle = colours.muted;
  if (right + length + 12 < width) pen.fillText(text, Math.max(right, left + LEAST_PX) + 8, y + ROW_PX / 2);
  else if (left - length - 6 > 0) pen.fillText(text, left - length - 6, y + ROW_PX / 2);
}

/** An arrow where the bar is left or right of what is seen. @param {CanvasRenderingContext2D} pen @param {Scene} scene
 * @param {boolean} isLeft @param {number} y */
function beyond(pen, { width, colours }, isLeft, y) {
  pen.fillStyle = colours.muted;
  pen.fillText(isLeft ? "‹" : "›", isLeft ? 3 : width - 8, y + ROW_PX / 2);
}

/** @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} length @param {string} colour */
function stripes(pen, x, y, length, colour) {
  pen.save();
  pen.beginPath();
  pen.rect(x, y, length, BAR_PX);
  pen.clip();
  pen.strokeStyle = colour;
  pen.strokeRect(x + 0.5, y + 0.5, length - 1, BAR_PX - 1);
  pen.beginPath();
  for (let at = x - BAR_PX; at < x + length; at += 5) {
    pen.moveTo(at, y + BAR_PX);
    pen.lineTo(at + BAR_PX, y);
  }
  pen.stroke();
  pen.restore();
}

/** @param {import("./model.js").RunModel} model @param {string} by */
function largestOf({ rows }, by) {
  let sum = 0;
  for (let row = rows.rootFirst; row !== NONE; row = rows.next[row]) sum += (by === "cost" ? rows.cost[row] || 0 : rows.tokens[row]);
  return sum;
}

/** @param {CanvasRenderingContext2D} pen @param {Scene} scene @param {number} entry @param {number} y @param {number} largest */
function paintAmount(pen, scene, entry, y, largest) {
  const { rows, view } = scene.model;
  const group = view.groupOf(entry);
  let amount = 0;
  for (let row = view.rowOf(entry); ; row = rows.next[row]) {
    amount += scene.by === "cost" ? rows.cost[row] || 0 : rows.tokens[row];
    if (!group || row === group.last) break;
  }
  if (!amount || !largest) return;
  // Beside the longest bar there is its amount, and its share.
  const room = Math.max(40, scene.width - 152);
  const length = Math.max(LEAST_PX, (amount / largest) * room);
  const isLeaf = entry >= 0 && (rows.kind[entry] === STEP || rows.isAttempt(entry));
  pen.fillStyle = scene.colours["completed-bar"];
  pen.globalAlpha = isLeaf ? 1 : 0.5;
  pen.fillRect(8, y + (ROW_PX - BAR_PX) / 2, length, BAR_PX);
  pen.globalAlpha = 1;
  pen.fillStyle = scene.colours.muted;
  const share = ((amount / largest) * 100).toFixed(amount / largest < 0.1 ? 1 : 0);
  pen.fillText(`${scene.by === "cost" ? shortMoney(amount) : short(amount)} · ${share} %`, 8 + length + 8, y + ROW_PX / 2);
}
