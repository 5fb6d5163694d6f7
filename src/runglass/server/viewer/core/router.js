// Addresses: every state of a page is one. The path says which page, the query what is looked at on it.
import { signal } from "./html.js";

/** @typedef {{path: string, query: URLSearchParams}} Place */

/** Where we are. @type {import("../vendor/signals.js").Signal<Place>} */
export const place = signal(here());

function here() {
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

/** Goes to another page or state, as a link does. @param {string} href */
export function go(href) {
  history.pushState(null, "", href);
  place.value = here();
}

/** Sets what is looked at on this page: a null takes a parameter away. Back leads to where we were with `push`.
 * @param {Record<string, string|number|null|undefined>} changes @param {{push?: boolean}} [how] */
export function setQuery(changes, { push = false } = {}) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") query.delete(name);
    else query.set(name, String(value));
  }
  const search = readable(query);
  const href = location.pathname + (search ? `?${search}` : "");
  if (href === location.pathname + location.search) return;
  history[push ? "pushState" : "replaceState"](null, "", href);
  place.value = here();
}

/** A query that people can read: what need not be escaped in it is not. @param {URLSearchParams} query */
export function readable(query) {
  return query.toString().replace(/%(3A|2F|2C|40|3E|3C|22)/g, (escape) =>
    escape === "%22" || escape === "%3C" || escape === "%3E" ? escape : decodeURIComponent(escape));
}

/** Follows links to our own pages without loading them anew. */
export function followLinks() {
  addEventListener("popstate", () => { place.value = here(); });
  addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
    if (!link || !plain || event.defaultPrevented || link.target) return;
    if (link.origin !== location.origin || !/^\/($|runs\/|compare\/)/.test(link.pathname)) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}
