// What is said where no run was found, and of which names in the query no run knows.
import { html, useEffect, useState } from "../core/html.js";
import { get, me } from "../core/api.js";
import { namesIn } from "../data/search.js";

/** @typedef {{field: string, name: string}} Named */

/** @type {Record<string, string>} */
const SAID = { step: "has run a step", model: "has called a model" };

/** @param {{query: string, onAll: () => void}} props */
export function Nothing({ query, onAll }) {
  const [unknown, setUnknown] = useState(/** @type {Named[]} */ ([]));
  useEffect(() => {
    const abort = new AbortController();
    setUnknown([]);
    unknownIn(query, abort.signal).then(setUnknown, () => {});
    return () => abort.abort();
  }, [query]);
  return query
    ? html`<div class="empty"><h2>No run matches</h2><p><code>${query}</code></p>
        ${unknown.map(({ field, name }) => html`<p key=${`${field}:${name}`}>No run of this project ${SAID[field]} <code>${name}</code>.</p>`)}
        <button onClick=${onAll}>Show all runs</button></div>`
    : html`<div class="empty"><h2>No runs yet</h2>
        <p>Runs of this project appear here as they start. From a terminal:</p>
        <p><code>${`runglass run ${me.value?.org ?? "ORG"}/${me.value?.project ?? "PROJECT"}/FLOW --message "Hello"`}</code></p></div>`;
}

/** The names that no run has, as far as one request for each can tell. @param {string} query @param {AbortSignal} abort */
async function unknownIn(query, abort) {
  const asked = await Promise.all(namesIn(query).map(async (named) => {
    const parameters = new URLSearchParams({ q: `${named.field}:"${named.name}"`, limit: "1" });
    const page = await get(`/flow-runs?${parameters}`, abort);
    return { named, isUnknown: page.runs.length === 0 && page.nextCursor === null };
  }));
  return asked.filter((each) => each.isUnknown).map((each) => each.named);
}
