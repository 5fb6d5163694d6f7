// The server's API as the pages call it: JSON in, JSON out, and one kind of error that says what went wrong.
import { signal } from "./html.js";
import { PROOF, keep, kept } from "./kept.js";
import { parse } from "../data/json.js";

const API = "/api/v1";
const PROOF_HEADER = "X-Viewer-Proof";
const SAVED_MS = 60_000;
/** By then the browser reads a file that it saves, which it asks its user about first. */

/** @typedef {{role: "admin"|"run"|"read"|"record", org: string, project: string, keyName: string, version: string}} Identity */

/** Who is signed in: undefined until it is known, null where nobody is.
 * @type {import("../vendor/signals.js").Signal<Identity|null|undefined>} */
export const me = signal(undefined);

/** Whether the server has ended the sign-in of who was signed in here. */
export const wasSignedOut = signal(false);

/** Answers on their way that nothing has asked for yet, by path. @type {Map<string, Promise<Response>>} */
const early = new Map();

/** The proof by which it was found out who is signed in. @type {string|null} */
let known = null;

const handedOver = /^#proof=([\w-]{43})$/.exec(location.hash);
if (handedOver) {
  history.replaceState(history.state, "", location.pathname + location.search);
  // A ticket has led here. Another site that does so comes by no redirect, and must sign nobody in.
  const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  if (navigation?.redirectCount) keep(PROOF, handedOver[1]);
}

/** What the server answered in place of what was asked for. */
export class ApiError extends Error {
  /** @param {number} status @param {string} code @param {string} message @param {object} [detail] */
  constructor(status, code, message, detail = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.detail = detail;
  }
}

/** What was thrown, as an error. @param {unknown} thrown @returns {Error} */
export function errorOf(thrown) {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** The answer to a request. Throws ApiError, which has status 0 where no server was reached.
 * @param {string} path below `/api/v1` @param {RequestInit} [options] @returns {Promise<Response>} */
export async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  const proof = kept(PROOF);
  if (proof) headers.set(PROOF_HEADER, proof);
  let answer;
  try {
    answer = await fetch(`${API}${path}`, { credentials: "same-origin", ...options, headers });
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new ApiError(0, "UNREACHABLE", "The server cannot be reached. Your next action tries again.");
  }
  if (answer.ok) return answer;
  throw await failureOf(answer);
}

/** The JSON at a path. @param {string} path @param {AbortSignal} [abort] @returns {Promise<Json>} */
export async function get(path, abort) {
  const begun = early.get(path);
  early.delete(path);
  return parse(await (await (begun ?? request(path, { signal: abort }))).text());
}

/** Asks for the JSON at a path that `get` will be asked for, where somebody seems to be signed in. @param {string} path */
export function begin(path) {
  if (!kept(PROOF)) return;
  const begun = request(path);
  // Who asks for it is told.
  begun.catch(() => {});
  early.set(path, begun);
}

/** Has the browser save what is at a path as a file: a link would send no proof. Throws ApiError.
 * @param {string} path @param {string} name */
export async function download(path, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await request(path)).blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), SAVED_MS);
}

/** @param {Response} answer */
async function failureOf(answer) {
  const body = await answer.json().catch(() => ({}));
  const detail = body.detail ?? {};
  if (answer.status === 401) {
    // What was refused must not be taken for the answer after the next sign-in.
    early.clear();
    if (me.value) wasSignedOut.value = true;
    me.value = null;
  }
  return new ApiError(
    answer.status, detail.code ?? "INTERNAL_ERROR", detail.message ?? `The server answered ${answer.status}.`, detail,
  );
}

/** Finds out who is signed in. */
export async function identify() {
  known = kept(PROOF);
  try {
    me.value = await get("/viewer/me");
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
  }
}

/** Shows nothing of who was signed in by another session than that of now, whether or not the server answers. */
export function forgetOthers() {
  if (kept(PROOF) === known) return;
  if (me.value) wasSignedOut.value = true;
  me.value = null;
}

/** Signs in with a key, which is kept nowhere: the server answers with the halves of a session. @param {string} key */
export async function signIn(key) {
  const answer = await request("/viewer/session", { method: "POST", headers: { Authorization: `Bearer ${key.trim()}` } });
  keep(PROOF, answer.headers.get(PROOF_HEADER));
  await identify();
  wasSignedOut.value = false;
}

/** Signs out. */
export async function signOut() {
  await request("/viewer/session", { method: "DELETE" });
  keep(PROOF, null);
  me.value = null;
  wasSignedOut.value = false;
}
