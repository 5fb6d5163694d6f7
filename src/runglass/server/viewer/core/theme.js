// Light or dark: as the system says, or as somebody has chosen in this browser.
import { signal } from "./html.js";
import { keep, kept } from "./kept.js";

const KEY = "runglass.theme";

/** Counts the changes of the colours, for whoever paints with them. */
export const recoloured = signal(0);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { recoloured.value += 1; });
show(kept(KEY));

/** @param {"system"|"light"|"dark"} chosen */
export function setTheme(chosen) {
  keep(KEY, chosen);
  show(chosen);
  recoloured.value += 1;
}

/** @param {string|null} chosen */
function show(chosen) {
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}
