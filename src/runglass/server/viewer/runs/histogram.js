// Runs over time, failed ones red: drag to choose a time.
import { currentOf, html, useEffect, useRef, useState } from "../core/html.js";
import { get } from "../core/api.js";
import { count, exactTime, round } from "../data/format.js";

const BUCKETS = 90;
const HEIGHT = 32;
const SOON_MS = 1000;
/** How often it is read anew at most. */

/** @typedef {{from: string, bucketMs: number, buckets: {runs: number, failed: number}[]}} Found */

/** @param {{query: string, changes: number, onTime: (sinceMs: number, untilMs: number) => void}} props
 *   `changes` grows when there may be new runs, or other ones failed */
export function Histogram({ query, changes, onTime }) {
  const [found, setFound] = useState(/** @type {Found|null} */ (null));
  /** The changes that were asked for last, and those that are in the bars. */
  const [asked, setAsked] = useState(changes);
  const [read, setRead] = useState(-1);
  const now = useRef(changes);
  now.current = changes;
  const [drag, setDrag] = useState(/** @type {[number, number]|null} */ (null));
  /** @type {import("../core/html.js").Ref<SVGSVGElement>} */
  const strip = useRef(null);

  useEffect(() => {
    const abort = new AbortController();
    const parameters = new URLSearchParams({ buckets: String(BUCKETS), round: "true" });
    if (query) parameters.set("q", query);
    get(`/flow-runs/histogram?${parameters}`, abort.signal).then(setFound, () => {
      // Of a query that cannot be read there are no bars, and those of the one before would pass for it.
      if (!abort.signal.aborted) setFound(null);
    }).then(() => {
      if (!abort.signal.aborted) setRead(asked);
    });
    return () => abort.abort();
  }, [query, asked]);
  // However long a read takes, the next one waits for it.
  const isBehind = read === asked && changes !== asked;
  useEffect(() => {
    const timer = isBehind ? setTimeout(() => setAsked(now.current), SOON_MS) : undefined;
    return () => clearTimeout(timer);
  }, [isBehind]);

  if (!found || !found.buckets.length) return html`<div class="histogram" aria-hidden="true"></div>`;
  const { buckets, bucketMs } = found;
  const from = Date.parse(found.from);
  const most = Math.max(1, ...buckets.map((bucket) => bucket.runs));
  const at = (/** @type {PointerEvent} */ event) => {
    const box = currentOf(strip).getBoundingClientRect();
    return Math.min(buckets.length, Math.max(0, ((event.clientX - box.left) / box.width) * buckets.length));
  };
  const chosen = drag && [Math.min(...drag), Math.max(...drag)];

  function up() {
    if (chosen && chosen[1] - chosen[0] > 0.3) {
      onTime(from + Math.floor(chosen[0]) * bucketMs, from + Math.ceil(chosen[1]) * bucketMs);
    }
    setDrag(null);
  }

  const total = buckets.reduce((sum, bucket) => sum + bucket.runs, 0);
  if (!total) return html`<div class="histogram" aria-hidden="true"></div>`;
  const failed = buckets.reduce((sum, bucket) => sum + bucket.failed, 0);
  return html`
    <div class="histogram">
      <svg ref=${strip} viewBox=${`0 0 ${buckets.length} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label=${`${count(total, "run")}, ${failed} failed, ${count(buckets.length, "bar")} of ${round(bucketMs)}`}
        onPointerDown=${(/** @type {PointerEvent} */ event) => { currentOf(strip).setPointerCapture(event.pointerId); setDrag([at(event), at(event)]); }}
        onPointerMove=${(/** @type {PointerEvent} */ event) => drag && setDrag([drag[0], at(event)])}
        onPointerUp=${up} onPointerCancel=${() => setDrag(null)}>
        ${buckets.map((bucket, number) => bucket.runs > 0 && html`
          <g key=${number}>
            <title>${`${exactTime(new Date(from + number * bucketMs).toISOString()).slice(0, 16)}: ${count(bucket.runs, "run")}, ${bucket.failed} failed`}</title>
            <rect class="bar" x=${number + 0.1} width="0.8" y=${HEIGHT - height(bucket.runs, most)} height=${height(bucket.runs, most)} />
            ${bucket.failed > 0 && html`<rect class="bar failed" x=${number + 0.1} width="0.8"
              y=${HEIGHT - height(bucket.failed, most)} height=${height(bucket.failed, most)} />`}
          </g>`)}
        ${chosen && html`<rect class="chosen" x=${chosen[0]} width=${chosen[1] - chosen[0]} y="0" height=${HEIGHT} />`}
      </svg>
      <span class="muted">per ${round(bucketMs)}</span>
    </div>`;
}

/** A bar is never too low to be seen. @param {number} runs @param {number} most */
function height(runs, most) {
  return Math.max(3, (runs / most) * HEIGHT);
}
