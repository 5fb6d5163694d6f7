// What this browser keeps for all pages of this origin, and for no other port of its host.

/** The name of the session's half that pages keep. The other one is a cookie, which no script reads. */
export const PROOF = "runglass.proof";

/** @param {string} name */
export function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    // A browser that keeps nothing has forgotten it.
    return null;
  }
}

/** @param {string} name @param {string|null} value null forgets it */
export function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // A browser that keeps nothing forgets it with the page.
  }
}
