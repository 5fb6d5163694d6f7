// Components in modules of their own, which are loaded when they are first shown, or once there is time.
import { html, signal } from "./html.js";

/** All of them, to be loaded once there is time. @type {(() => Promise<void>)[]} */
const all = [];

/** A component that stands for one that has not been loaded yet, and shows nothing until it is.
 * @template {object} Props @param {() => Promise<(props: Props) => unknown>} load */
export function lazy(load) {
  const found = signal(/** @type {((props: Props) => unknown)|null} */ (null));
  const problem = signal("");
  /** @type {Promise<void>|undefined} */
  let loading;
  const begin = () => {
    loading ??= load().then((component) => { found.value = component; }, () => {
      loading = undefined;
      problem.value = "A part of this page could not be loaded. Load the page anew.";
    });
    return loading;
  };
  all.push(begin);
  /** @param {Props} props */
  return (props) => {
    if (found.value) return html`<${found.value} ...${props} />`;
    if (problem.value) return html`<p class="problem" role="alert">${problem.value}</p>`;
    begin();
    return null;
  };
}

/** Loads what has not been loaded yet: nobody waits for it later, and a new version of the server is no matter. */
export function loadAll() {
  for (const begin of all) begin();
}
