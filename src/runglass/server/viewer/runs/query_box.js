// The query: text with completion, and the terms that are wanted most often as switches.
import { html, useEffect, useRef, useState } from "../core/html.js";
import { ApiError, get } from "../core/api.js";
import { completion, has, isUnfinished, toggled, wrongTerm } from "../data/search.js";

const SWITCHES = [["failed", "status:failed"], ["running", "status:running"], ["waiting", "status:paused"],
  ["last 24 h", "since:24h"], ["recorded", "kind:recorded"]];

const EXAMPLE = 'status:failed  flow:SLUG  since:24h  duration:>3s  text:"refund"';

const PAUSE_MS = 400;
const REAL_PAUSE_MS = 1500;
/** Who does not type for so long wants to know what is wrong. */

/** @typedef {import("../data/search.js").Completion} Completion */
/** @typedef {import("../data/search.js").Option} Option */
/** @typedef {import("../core/html.js").EventOf<HTMLInputElement>} FieldEvent */

/** @param {{query: string, problem: Error|null, onQuery: (query: string, how?: {push: boolean}) => void,
 *   fieldRef: import("../core/html.js").Ref<HTMLInputElement>}} props */
export function QueryBox({ query, problem, onQuery, fieldRef }) {
  const [text, setText] = useState(query);
  const [offered, setOffered] = useState(/** @type {Completion|null} */ (null));
  const [chosen, setChosen] = useState(-1);
  const flows = useRef(/** @type {string[]|undefined} */ (undefined));
  const waiting = useRef(/** @type {ReturnType<typeof setTimeout>|undefined} */ (undefined));
  /** The query that is being typed, as far as it was asked for: what comes next takes its place in the history. */
  const growing = useRef(/** @type {string|null} */ (null));
  /** For timers, which outlive the query of their time. */
  const now = useRef(query);
  now.current = query;
  const [scrolled, setScrolled] = useState(0);

  // The space after a term stays: the next one is being typed.
  useEffect(() => {
    setText((was) => (was.trim() === query ? was : query));
    if (query === growing.current) return;
    // Somebody has gone elsewhere meanwhile.
    growing.current = null;
    clearTimeout(waiting.current);
  }, [query]);
  useEffect(() => () => clearTimeout(waiting.current), []);

  /** Asks for what is typed; `settled` where it is typed to its end. @param {string} value @param {boolean} settled */
  function ask(value, settled) {
    clearTimeout(waiting.current);
    const asked = value.trim();
    if (asked !== now.current) {
      const isGrowing = growing.current === now.current;
      growing.current = asked;
      onQuery(asked, { push: !isGrowing });
    }
    if (settled) growing.current = null;
  }

  /** @param {string} value @param {number} caret */
  function offer(value, caret) {
    if (flows.current === undefined) {
      flows.current = [];
      get("/flows").then(({ flows: found }) => {
        flows.current = found.map((/** @type {{slug: string}} */ flow) => flow.slug);
        // Somebody may have typed on meanwhile, or left.
        const field = fieldRef.current;
        if (field) setOffered((was) => was && completion(field.value, caretOf(field), { flows: flows.current }));
      }, () => {});
    }
    setOffered(completion(value, caret, { flows: flows.current }));
    setChosen(-1);
  }

  /** @param {FieldEvent} event */
  function typed(event) {
    const { value } = event.currentTarget;
    setText(value);
    offer(value, caretOf(event.currentTarget));
    clearTimeout(waiting.current);
    waiting.current = setTimeout(() => {
      const known = { flows: flows.current };
      if (!isUnfinished(value, known)) ask(value, false);
      // Who is shown how a term may go on has not come to its end.
      else if (completion(value, value.length, known).options.length) return;
      waiting.current = setTimeout(() => ask(value, true), REAL_PAUSE_MS - PAUSE_MS);
    }, PAUSE_MS);
  }

  /** @param {Option} option */
  function take(option) {
    if (!offered) return;
    const done = option.text.endsWith(":") ? option.text : `${option.text} `;
    const value = text.slice(0, offered.start) + done + text.slice(offered.end).trimStart();
    const caret = offered.start + done.length;
    setText(value);
    clearTimeout(waiting.current);
    if (!done.endsWith(":")) ask(value, true);
    requestAnimationFrame(() => {
      fieldRef.current?.setSelectionRange(caret, caret);
      offer(value, caret);
    });
  }

  /** @param {import("../core/html.js").EventOf<HTMLInputElement, KeyboardEvent>} event */
  function key(event) {
    const options = offered?.options ?? [];
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (!options.length) return;
      event.preventDefault();
      const by = event.key === "ArrowDown" ? 1 : -1;
      setChosen((chosen + by + options.length + (chosen < 0 && by < 0 ? 1 : 0)) % options.length);
    } else if ((event.key === "Enter" || event.key === "Tab") && options[chosen]) {
      event.preventDefault();
      take(options[chosen]);
    } else if (event.key === "Enter") {
      setOffered(null);
      ask(event.currentTarget.value, true);
    } else if (event.key === "Escape") {
      if (offered?.options.length) setOffered(null);
      else fieldRef.current?.blur();
    }
  }

  function left() {
    setOffered(null);
    growing.current = null;
    clearTimeout(waiting.current);
    // Not at once, which would take the runs away from under a click.
    if (text.trim() !== query) waiting.current = setTimeout(() => ask(text, true), REAL_PAUSE_MS);
  }

  const options = offered?.options ?? [];
  // What is being mended is wrong no more, until it is asked for again.
  const shown = problem && text.trim() === query ? problem : null;
  const wrong = shown instanceof ApiError ? wrongTerm(text, shown.detail) : null;
  return html`
    <div class="query">
      <div class="query-field">
        ${wrong && html`<div class="query-wrong mono" aria-hidden="true"><span style=${{ left: `-${scrolled}px` }}>
          ${text.slice(0, wrong.start)}<u>${text.slice(wrong.start, wrong.end)}</u></span></div>`}
        <input ref=${fieldRef} type="search" role="combobox" aria-label="Query" aria-expanded=${options.length > 0}
          aria-controls="query-options" aria-autocomplete="list" aria-invalid=${shown !== null}
          aria-describedby="query-problem" aria-activedescendant=${chosen < 0 ? null : `query-option-${chosen}`}
          placeholder=${EXAMPLE} spellcheck=${false} autocomplete="off"
          value=${text} onInput=${typed} onKeyDown=${key} onScroll=${(/** @type {FieldEvent} */ event) => setScrolled(event.currentTarget.scrollLeft)}
          onFocus=${(/** @type {FieldEvent} */ event) => offer(text, caretOf(event.currentTarget))} onBlur=${left} />
        ${options.length > 0 && html`
          <ul id="query-options" class="options" role="listbox" aria-label="Completions">
            ${options.map((option, at) => html`
              <li id=${`query-option-${at}`} role="option" key=${option.text} aria-selected=${at === chosen}
                onMouseDown=${(/** @type {MouseEvent} */ event) => { event.preventDefault(); take(option); }}>
                <span class="mono">${option.text}</span><span class="muted cut">${option.about}</span>
              </li>`)}
          </ul>`}
        <p id="query-problem" class="query-problem problem" role="alert">${shown?.message ?? ""}</p>
      </div>
      <div class="switches" role="group" aria-label="Common filters">
        ${SWITCHES.map(([name, term]) => html`
          <button key=${term} aria-pressed=${has(query, term)} title=${term}
            onClick=${() => onQuery(toggled(query, term))}>${name}</button>`)}
      </div>
    </div>`;
}

/** Where the next letter goes. @param {HTMLInputElement} field */
function caretOf(field) {
  return field.selectionStart ?? field.value.length;
}
