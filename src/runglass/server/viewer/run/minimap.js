// The whole run in a strip: how much goes on at each time, failures never hidden, and which part is seen.
import { currentOf, html, useEffect, useLayoutEffect, useRef } from "../core/html.js";
import { recoloured } from "../core/theme.js";
import { FAILED, RETRIED } from "../data/columns.js";
import { within } from "../data/time_axis.js";
import { coloursOf, penOf } from "./timeline.js";

const HEIGHT = 32;
const LEAST_DRAG_PX = 4;

/** @param {{model: import("./model.js").RunModel, controls: import("./page.js").Controls}} props */
export function Minimap({ model, controls }) {
  /** @type {import("../core/html.js").Ref<HTMLCanvasElement>} */
  const canvas = useRef(null);
  /** @type {import("../core/html.js").Ref<{x: number, at: number, window: import("../data/time_axis.js").Span|null}>} */
  const drag = useRef(null);
  const paint = () => paintStrip(currentOf(canvas), model, controls.window.peek());
  const seen = [model.changes.value, controls.window.value, recoloured.value];
  useEffect(paint, seen);
  useLayoutEffect(() => {
    const resized = new ResizeObserver(paint);
    resized.observe(currentOf(canvas));
    return () => resized.disconnect();
  }, [model]);

  const whole = { from: 0, to: model.endMs() * 1.02 };
  const ms = (/** @type {PointerEvent} */ event) => (event.offsetX / currentOf(canvas).clientWidth) * whole.to;

  /** @param {PointerEvent} event */
  function down(event) {
    currentOf(canvas).setPointerCapture(event.pointerId);
    const window = controls.window.value;
    const at = ms(event);
    const isInside = window && at >= window.from && at <= window.to;
    drag.current = { x: event.offsetX, at, window: isInside ? window : null };
  }
  /** @param {PointerEvent} event */
  function move(event) {
    const { current } = drag;
    if (!current) return;
    const at = ms(event);
    if (current.window) {
      const by = at - current.at;
      controls.window.value = within({ from: current.window.from + by, to: current.window.to + by }, whole);
    } else if (Math.abs(event.offsetX - current.x) > LEAST_DRAG_PX) {
      const [from, to] = [current.at, at].sort((a, b) => a - b);
      controls.window.value = within({ from, to: Math.max(to, from + 1) }, whole);
    }
  }

  return html`<canvas class="minimap" ref=${canvas} role="img" aria-label="Overview of the run, failures in red"
    title="Drag to choose a time, double-click to see all of it" onPointerDown=${down} onPointerMove=${move}
    onPointerUp=${() => { drag.current = null; }} onDblClick=${() => { controls.window.value = null; }}></canvas>`;
}

/** @param {HTMLCanvasElement} canvas @param {import("./model.js").RunModel} model
 * @param {import("../data/time_axis.js").Span|null} window */
function paintStrip(canvas, model, window) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HEIGHT * ratio);
  const { busy, worst, most } = model.density;
  if (most === 0) return;
  const colours = coloursOf(canvas.parentElement ?? document.body);
  const pen = penOf(canvas);
  pen.scale(ratio, ratio);
  const whole = model.endMs() * 1.02;
  const scale = (model.endMs() / whole) * (width / busy.length);
  // Whole pixels: halves of them would be stripes.
  const left = (/** @type {number} */ at) => Math.floor(at * scale);
  for (let at = 0; at < busy.length; at += 1) {
    if (busy[at] === 0) continue;
    const height = Math.max(2, Math.round((busy[at] / most) * (HEIGHT - 8)));
    pen.fillStyle = colours["completed-bar"];
    pen.fillRect(left(at), HEIGHT - height, Math.max(1, left(at + 1) - left(at)), height);
  }
  for (let at = 0; at < busy.length; at += 1) {
    if (worst[at] !== FAILED && worst[at] !== RETRIED) continue;
    const isFailed = worst[at] === FAILED;
    pen.fillStyle = isFailed ? colours.failed : colours.retried;
    pen.fillRect(left(at), 0, Math.max(2, left(at + 1) - left(at)), isFailed ? HEIGHT : 4);
  }
  if (!window) return;
  pen.fillStyle = colours["bg-3"];
  pen.globalAlpha = 0.6;
  const [from, to] = [(window.from / whole) * width, (window.to / whole) * width];
  pen.fillRect(0, 0, from, HEIGHT);
  pen.fillRect(to, 0, width - to, HEIGHT);
  pen.globalAlpha = 1;
  pen.strokeStyle = colours.accent;
  pen.strokeRect(from + 0.5, 0.5, Math.max(2, to - from - 1), HEIGHT - 1);
}
