// The tree and, beside it, the same rows on the axis of time. One scroller; what is seen is painted, and no more.
import { currentOf, effect, html, useLayoutEffect, useRef } from "../core/html.js";
import { recoloured } from "../core/theme.js";
import { idleTimes } from "../data/density.js";
import { Folding, TimeAxis, within, zoomed } from "../data/time_axis.js";
import { selectedEntry, toggle } from "./moves.js";
import { AXIS_PX, coloursOf, paint, penOf } from "./timeline.js";
import { clicked, opened, ROW_PX, TreeRows } from "./tree_rows.js";

/** @template T @typedef {import("../core/html.js").Ref<T>} Ref */
/** @typedef {{scroller: HTMLElement, sizer: HTMLElement, layer: HTMLElement, tree: HTMLElement, canvas: HTMLCanvasElement}} Parts */

const LARGEST_PX = 12_000_000;
/** Browsers know no element that is much higher; beyond it a pixel of the scroll bar is several. */
const DRAG_PX = 4;

/** @param {{model: import("./model.js").RunModel, controls: import("./page.js").Controls}} props */
export function Grid({ model, controls }) {
  /** @type {Ref<HTMLElement>} */
  const scroller = useRef(null);
  /** @type {Ref<HTMLElement>} */
  const sizer = useRef(null);
  /** @type {Ref<HTMLElement>} */
  const layer = useRef(null);
  /** @type {Ref<HTMLElement>} */
  const tree = useRef(null);
  /** @type {Ref<HTMLCanvasElement>} */
  const canvas = useRef(null);
  /** @type {Ref<GridPainter>} */
  const painter = useRef(null);

  useLayoutEffect(() => {
    const made = new GridPainter(model, controls, {
      scroller: currentOf(scroller), sizer: currentOf(sizer), layer: currentOf(layer), tree: currentOf(tree), canvas: currentOf(canvas),
    });
    painter.current = made;
    controls.grid.value = made;
    return () => made.close();
  }, [model]);

  const [by, selected] = [controls.by.value, model.selected.value];
  useLayoutEffect(() => { if (selected >= 0) currentOf(painter).show(selected); }, [selected]);
  const active = model.changes.value >= 0 ? selectedEntry(model) : -1;

  return html`
    <div class=${`grid${controls.hasTime.value ? "" : " no-time"}`} ref=${scroller}>
      <div class="sizer" ref=${sizer}>
        <div class="layer" ref=${layer}>
          <div class="tree-side">
            <div class="tree-head muted"><span>step</span><span>${by === "time" ? "took" : by}</span></div>
            <div class="tree" ref=${tree} role="tree" tabindex="0" aria-label="Steps of the run"
              aria-activedescendant=${active < 0 ? null : `line-${active}`}
              onClick=${(/** @type {MouseEvent} */ event) => clicked(event, model, controls)} onDblClick=${(/** @type {MouseEvent} */ event) => opened(event, model)}></div>
          </div>
          <canvas ref=${canvas} aria-hidden="true"></canvas>
        </div>
      </div>
    </div>`;
}

/** Paints tree and canvas, and moves the window of time. */
export class GridPainter {
  /** @param {import("./model.js").RunModel} model @param {import("./page.js").Controls} controls
   * @param {Parts} parts */
  constructor(model, controls, parts) {
    this.model = model;
    this.controls = controls;
    this.scroller = parts.scroller;
    this.sizer = parts.sizer;
    this.layer = parts.layer;
    this.canvas = parts.canvas;
    this.lines = new TreeRows(parts.tree);
    this.pen = penOf(this.canvas);
    this.hover = -1;
    /** @type {{from: number, to: number, isMoving: boolean}|null} */
    this.drag = null;
    /** @type {number|undefined} */
    this.frame = undefined;
    /** @type {Record<string, string>|undefined} */
    this.colours = undefined;
    /** @type {TimeAxis|undefined} */
    this.axis = undefined;
    /** Where the reader was in the frame before. @type {{top: number, entry: number|undefined, changes: number}|undefined} */
    this.seen = undefined;
    this.resized = new ResizeObserver(() => this.soon());
    this.resized.observe(this.scroller);
    this.abort = new AbortController();
    // What changes is seen in the next frame, whatever else the page has to do.
    this.unwatch = [
      effect(() => this.soonAfter(model.changes, model.selected, controls.by, controls.window, controls.foldIdle, controls.hasTime)),
      effect(() => {
        recoloured.value;
        this.colours = undefined;
        this.soon();
      }),
    ];
    const { signal } = this.abort;
    this.scroller.addEventListener("scroll", () => this.soon(), { signal, passive: true });
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { signal, passive: false });
    this.canvas.addEventListener("pointerdown", (event) => this.down(event), { signal });
    this.canvas.addEventListener("pointermove", (event) => this.moved(event), { signal });
    this.canvas.addEventListener("pointerup", (event) => this.up(event), { signal });
    this.canvas.addEventListener("pointerleave", () => { this.hover = -1; this.soon(); }, { signal });
    this.canvas.addEventListener("dblclick", () => { this.controls.window.value = null; }, { signal });
  }

  close() {
    this.abort.abort();
    for (const unwatch of this.unwatch) unwatch();
    this.resized.disconnect();
    clearTimeout(this.timer);
    if (this.frame !== undefined) cancelAnimationFrame(this.frame);
  }

  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.paint();
    });
  }

  /** @param {...import("../vendor/signals.js").Signal<unknown>} signals */
  soonAfter(...signals) {
    for (const each of signals) each.value;
    this.soon();
  }

  /** How many pixels of rows a pixel of the scroller is. */
  ratio() {
    const whole = this.model.view.count * ROW_PX;
    const room = this.scroller.clientHeight - AXIS_PX;
    return whole <= LARGEST_PX ? 1 : (whole - room) / (LARGEST_PX - room);
  }

  paint() {
    const { model, scroller } = this;
    const height = scroller.clientHeight;
    const rows = Math.min(LARGEST_PX, model.view.count * ROW_PX);
    this.sizer.style.height = `${rows + AXIS_PX}px`;
    this.layer.style.height = `${height}px`;
    this.keepPlace();
    const top = scroller.scrollTop * this.ratio();
    // Asked before the lines are changed, of which the browser would have to find the places first.
    const width = this.canvas.clientWidth;
    const by = this.controls.by.peek();
    this.lines.paint(model, top, height - AXIS_PX, by);
    this.seen = { top, entry: model.view.entries[Math.floor(top / ROW_PX)], changes: model.changes.peek() };
    if (!this.controls.hasTime.peek()) return;
    const density = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * density) || this.canvas.height !== Math.round(height * density)) {
      this.canvas.width = Math.round(width * density);
      this.canvas.height = Math.round(height * density);
    }
    this.canvas.style.height = `${height}px`;
    this.pen.setTransform(density, 0, 0, density, 0, 0);
    this.colours ??= coloursOf(this.layer);
    this.axis = this.axisOf(width);
    paint(this.pen, { model, axis: this.axis, top, height, width, by, colours: this.colours, hover: this.hover });
    if (this.drag?.isMoving) this.paintDrag(this.drag, this.colours.accent, height);
    // What goes on grows.
    if (model.rows.rootFirst !== -1 && model.stream.peek() === "live" && model.run.peek()?.status === "running") {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => { if (!document.hidden) this.soon(); }, 250);
    }
  }

  /** What is read stays where it is, though rows have come before it: unless somebody follows. */
  keepPlace() {
    const { model, seen, scroller } = this;
    if (!seen || seen.changes === model.changes.peek() || seen.top < ROW_PX || seen.entry === undefined || seen.entry < 0) return;
    if (model.view.entries[Math.floor(seen.top / ROW_PX)] === seen.entry) return;
    const at = model.view.entryOf(seen.entry);
    if (at >= 0) scroller.scrollTop = (at * ROW_PX + (seen.top % ROW_PX)) / this.ratio();
  }

  whole() {
    return { from: 0, to: this.model.endMs() * 1.02 };
  }

  /** @param {number} width */
  axisOf(width) {
    const whole = this.whole();
    const window = this.controls.window.peek() ?? whole;
    const idle = this.controls.foldIdle.peek() ? idleTimes(this.model.density, this.model.endMs()) : [];
    return new TimeAxis(window, width, new Folding(idle, whole.to / 60));
  }

  /** Scrolls so that a row is seen. @param {number} row */
  show(row) {
    const at = this.model.view.entryOf(row);
    if (at < 0) return;
    const height = this.scroller.clientHeight - AXIS_PX;
    const ratio = this.ratio();
    const top = this.scroller.scrollTop * ratio;
    const y = at * ROW_PX;
    if (y < top) this.scroller.scrollTop = y / ratio;
    else if (y + ROW_PX > top + height) {
      // Far away it comes into the middle, so that what is around it is seen too.
      this.sizer.style.height = `${Math.min(LARGEST_PX, this.model.view.count * ROW_PX) + AXIS_PX}px`;
      this.scroller.scrollTop = (y > top + 2 * height ? y - height / 2 : y + ROW_PX - height) / ratio;
    }
    this.seen = undefined;
    this.soon();
  }

  /** @param {number} factor @param {number} [x] pixels from the left; the middle by default */
  zoom(factor, x = this.canvas.clientWidth / 2) {
    if (!this.axis) return;
    const whole = this.whole();
    const next = zoomed(this.controls.window.peek() ?? whole, whole, this.axis.ms(x), factor);
    this.controls.window.value = next.to - next.from >= (whole.to - whole.from) * 0.999 ? null : next;
  }

  /** @param {number} part of the window, to the right */
  pan(part) {
    const window = this.controls.window.peek();
    if (!window) return;
    const by = (window.to - window.from) * part;
    this.controls.window.value = within({ from: window.from + by, to: window.to + by }, this.whole());
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    if (this.controls.by.peek() !== "time") return;
    if (event.ctrlKey || event.metaKey || event.altKey) {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY / 300), event.offsetX);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.pan((event.deltaX || event.deltaY) / this.canvas.clientWidth);
    }
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { from: event.offsetX, to: event.offsetX, isMoving: false };
  }

  /** @param {PointerEvent} event */
  moved(event) {
    if (this.drag) {
      this.drag.to = event.offsetX;
      this.drag.isMoving ||= Math.abs(this.drag.to - this.drag.from) > DRAG_PX && this.controls.by.peek() === "time";
    }
    this.hover = event.offsetY < AXIS_PX ? -1 : this.entryAt(event.offsetY);
    this.soon();
  }

  /** @param {PointerEvent} event */
  up(event) {
    const { axis, drag } = this;
    this.drag = null;
    if (axis && drag?.isMoving) {
      const [from, to] = [drag.from, drag.to].sort((a, b) => a - b).map((x) => axis.ms(x));
      this.controls.window.value = within({ from, to: Math.max(from + 1, to) }, this.whole());
    } else if (drag && event.offsetY >= AXIS_PX) {
      const entry = this.model.view.entries[this.entryAt(event.offsetY)];
      if (this.entryAt(event.offsetY) < this.model.view.count) {
        if (this.model.view.groupOf(entry)) toggle(this.model, entry);
        else {
          this.model.selected.value = entry;
          this.controls.panel.value = true;
        }
      }
    }
    this.soon();
  }

  /** @param {number} y */
  entryAt(y) {
    return Math.floor((this.scroller.scrollTop * this.ratio() + y - AXIS_PX) / ROW_PX);
  }

  /** @param {{from: number, to: number}} drag @param {string} colour @param {number} height */
  paintDrag({ from, to }, colour, height) {
    this.pen.fillStyle = colour;
    this.pen.globalAlpha = 0.2;
    this.pen.fillRect(Math.min(from, to), 0, Math.abs(to - from), height);
    this.pen.globalAlpha = 1;
  }
}
