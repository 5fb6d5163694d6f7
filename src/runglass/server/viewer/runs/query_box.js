// The query: text with completion, and the terms that are wanted most often as switches.
import { html, useEffect, useRef, useState } from "../core/html.js";
import { get } from "../core/api.js";
import { completion, has, toggled } from "../data/search.js";

const SWITCHES = [["failed", "status:failed"], ["running", "status:running"], ["waiting", "status:paused"],
  ["last 24 h", "since:24h"]];

const EXAMPLE = 'status:failed  flow:SLUG  since:24h  duration:>3s  text:"refund"';

/** @typedef {import("../data/search.js").Completion} Completion */
/** @typedef {import("../data/search.js").Option} Option */
/** @typedef {import("../core/html.js").EventOf<HTMLInputElement>} FieldEvent */

/** @param {{query: string, problem: Error|null, onQuery: (query: string) => void, 
 *   fieldRef: import("../core/html.js").Ref<HTMLInputElement>}} props */
export function QueryBox({ query, problem, onQuery, fieldRef }) {
  const [text, setText] = useState(query);
  const [offered, setOffered] = useState(/** @type {Completion|null} */ (null));
  const [chosen, setChosen] = useState(-1);
  const flows = useRef(/** @type {string[]|undefined} */ (undefined));
  const waiting = useRef(/** @type {ReturnType<typeof setTimeout>|undefined} */ (undefined));

  // The space after a term stays: the next one is being typed.
  useEffect(() => { setText((was) => (was.trim() === query ? was : query)); }, [query]);

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
    waiting.current = setTimeout(() => { if (!/:$/.test(value)) onQuery(value.trim()); }, 400);
  }

  /** @param {Option} option */
  function take(option) {
    if (!offered) return;
    const done = option.text.endsWith(":") ? option.text : `${option.text} `;
    const value = text.slice(0, offered.start) + done + text.slice(offered.end).trimStart();
    const caret = offered.start + done.length;
    setText(value);
    clearTimeout(waiting.current);
    if (!done.endsWith(":")) onQuery(value.trim());
    requestAnimationFrame(() => {
      fieldRef.current?.setSelectionRange(caret, caret);
      offer(value, caret);
    });
  }

  /** @param {KeyboardEvent} event */
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
      clearTimeout(waiting.current);
      setOffered(null);
      onQuery(text.trim());
    } else if (event.key === "Escape") {
      if (offered?.options.length) setOffered(null);
      else fieldRef.current?.blur();
    }
  }

  const options = offered?.options ?? [];
  return html`
    <div class="query">
      <div class="query-field">
        <input ref=${fieldRef} type="search" role="combobox" aria-label="Query" aria-expanded=${options.length > 0}
          aria-controls="query-options" aria-autocomplete="list" aria-invalid=${problem !== null}
          aria-describedby="query-problem" aria-activedescendant=${chosen < 0 ? null : `query-option-${chosen}`}
          placeholder=${EXAMPLE} spellcheck=${false} autocomplete="off"
          value=${text} onInput=${typed} onKeyDown=${key}
          onFocus=${(/** @type {FieldEvent} */ event) => offer(text, caretOf(event.currentTarget))} onBlur=${() => setOffered(null)} />
        ${options.length > 0 && html`
          <ul id="query-options" class="options" role="listbox" aria-label="Completions">
            ${options.map((option, at) => html`
              <li id=${`query-option-${at}`} role="option" key=${option.text} aria-selected=${at === chosen}
                onMouseDown=${(/** @type {MouseEvent} */ event) => { event.preventDefault(); take(option); }}>
                <span class="mono">${option.text}</span><span class="muted cut">${option.about}</span>
              </li>`)}
          </ul>`}
      </div>
      <div class="switches" role="group" aria-label="Often wanted">
        ${SWITCHES.map(([name, term]) => html`
          <button key=${term} aria-pressed=${has(query, term)} title=${term}
            onClick=${() => onQuery(toggled(query, term))}>${name}</button>`)}
      </div>
    </div>
    <p id="query-problem" class="query-problem problem" role="alert">${problem?.message ?? ""}</p>`;
}

/** Where the next letter goes. @param {HTMLInputElement} field */
function caretOf(field) {
  return field.selectionStart ?? field.value.length;
}
