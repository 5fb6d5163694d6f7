// The server's API as the pages call it: JSON in, JSON out, and one kind of error that says what went wrong.
import { signal } from "./html.js";

const API = "/api/v1";

/** @typedef {{role: "admin"|"run"|"read", org: string, project: string, keyName: string, version: string}} Identity */

/** Who is signed in: undefined until it is known, null where nobody is.
 * @type {import("../vendor/signals.js").Signal<Identity|null|undefined>} */
export const me = signal(undefined);

/** Whether the server has ended the sign-in of who was signed in here. */
export const wasSignedOut = signal(false);

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
  let answer;
  try {
    answer = await fetch(`${API}${path}`, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error instanceof Error && error.name === "AbortError") throw error;
    throw new ApiError(0, "UNREACHABLE", "The server cannot be reached. It is asked again once you do something.");
  }
  if (answer.ok) return answer;
  throw await failureOf(answer);
}

/** The JSON at a path. @param {string} path @param {AbortSignal} [abort] @returns {Promise<Json>} */
export async function get(path, abort) {
  return (await request(path, { signal: abort })).json();
}

/** @param {Response} answer */
async function failureOf(answer) {
  const body = await answer.json().catch(() => ({}));
  const detail = body.detail ?? {};
  if (answer.status === 401) {
    if (me.value) wasSignedOut.value = true;
    me.value = null;
  }
  return new ApiError(
    answer.status, detail.code ?? "INTERNAL_ERROR", detail.message ?? `The server answered ${answer.status}.`, detail,
  );
}

/** Finds out who is signed in. */
export async function identify() {
  try {
    me.value = await get("/viewer/me");
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
  }
}

/** Signs in with a key, which is kept nowhere: the server answers with a cookie. @param {string} key */
export async function signIn(key) {
  await request("/viewer/session", { method: "POST", headers: { Authorization: `Bearer ${key.trim()}` } });
  await identify();
  wasSignedOut.value = false;
}

/** Signs out. */
export async function signOut() {
  await request("/viewer/session", { method: "DELETE" });
  me.value = null;
  wasSignedOut.value = false;
}
