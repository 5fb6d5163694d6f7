// A stream of server-sent events that goes on after a loss from the event that was had last.
import { ApiError, request } from "./api.js";
import { FrameParser } from "./frames.js";

/** @typedef {import("./frames.js").Frame} Frame */
/** @typedef {"live"|"lost"|"ended"} StreamState */

/** The event upon which all streams that are lost try again at once. */
export const RETRY = "runglass-retry";

const FIRST_WAIT_MS = 500;
const MOST_WAIT_MS = 10_000;

/** Whether the same request may go well later. @param {unknown} error */
export function mayRepeat(error) {
  return !(error instanceof ApiError) || error.status === 0 || error.status === 429 || error.status >= 500;
}

/** Follows a stream until it ends by itself or `abort` says so.
 *
 * `onFrames` gets what came in one piece; `onState` hears of each loss and of each time that it goes on. The
 * stream is asked for anew from the last id, so that nothing is missing and nothing comes twice.
 * Throws ApiError where the server refuses.
 * @param {(lastId: string) => string} pathAfter
 * @param {{lastId: string, abort: AbortSignal, onFrames: (frames: Frame[]) => boolean|void,
 *   onState: (state: StreamState) => void}} how
 *   `onFrames` gives true where nothing can follow */
export async function follow(pathAfter, { lastId, abort, onFrames, onState }) {
  let waitMs = FIRST_WAIT_MS;
  while (!abort.aborted) {
    try {
      const answer = await request(pathAfter(lastId), {
        headers: { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) }, signal: abort,
      });
      onState("live");
      waitMs = FIRST_WAIT_MS;
      const parser = new FrameParser();
      if (!answer.body) throw new TypeError("The stream has no body");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const frames = parser.feed(value);
        lastId = parser.lastId || lastId;
        if (frames.length && onFrames(frames)) {
          onState("ended");
          reader.cancel().catch(() => {});
          return;
        }
      }
    } catch (error) {
      if (abort.aborted) return;
      if (!mayRepeat(error)) throw error;
    }
    if (abort.aborted) return;
    onState("lost");
    await pause(waitMs + Math.random() * 250, abort);
    waitMs = Math.min(waitMs * 2, MOST_WAIT_MS);
  }
}

/** The frames at the beginning of a stream up to the one that `isLast` says: what follows is not read. `isCut` where so
 * many bytes came before it. Throws ApiError. @param {string} path
 * @param {{abort: AbortSignal, mostBytes: number, isLast: (frame: Frame) => boolean}} how */
export async function firstFrames(path, { abort, mostBytes, isLast }) {
  const answer = await request(path, { headers: { Accept: "text/event-stream" }, signal: abort });
  const parser = new FrameParser();
  const decoder = new TextDecoder();
  /** @type {Frame[]} */
  const frames = [];
  const reader = answer.body?.getReader();
  try {
    for (let bytes = 0; reader && bytes < mostBytes;) {
      const { done, value } = await reader.read();
      if (done) return { frames, isCut: false };
      bytes += value.length;
      for (const frame of parser.feed(decoder.decode(value, { stream: true }))) {
        frames.push(frame);
        if (isLast(frame)) return { frames, isCut: false };
      }
    }
    return { frames, isCut: true };
  } finally {
    reader?.cancel().catch(() => {});
  }
}

/** Waits, or less where the network comes back or somebody asks for it. @param {number} ms @param {AbortSignal} abort */
function pause(ms, abort) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      for (const name of ["online", RETRY]) removeEventListener(name, end);
      abort.removeEventListener("abort", end);
      resolve(undefined);
    };
    const timer = setTimeout(end, ms);
    for (const name of ["online", RETRY]) addEventListener(name, end);
    abort.addEventListener("abort", end);
  });
}
