// What the API has at a path, as a file.
import { html, useState } from "../core/html.js";
import { download, errorOf } from "../core/api.js";

/** @param {{path: string, name: string, label?: string, look?: string}} props `path` below `/api/v1`, `name` that of the file */
export function Download({ path, name, label = "Download", look = "plain" }) {
  const [isLoading, setLoading] = useState(false);
  const [problem, setProblem] = useState("");
  async function save() {
    setLoading(true);
    setProblem("");
    try {
      await download(path, name);
    } catch (error) {
      setProblem(errorOf(error).message);
    }
    setLoading(false);
  }
  return html`
    <button class=${look} disabled=${isLoading} onClick=${save}>${isLoading ? "Loading …" : label}</button>
    ${problem && html`<span class="problem cut" role="alert" title=${problem}>${problem}</span>`}`;
}
