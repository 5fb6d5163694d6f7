// Light or dark: as the system says, or as somebody has chosen in this browser.
import { signal } from "./html.js";
import { keep, kept } from "./kept.js";

const KEY = "runglass.theme";

/** @type {import("../vendor/signals.js").Signal<"system"|"light"|"dark">} */
export const theme = signal(chosenBefore());
show(theme.peek());

/** @param {"system"|"light"|"dark"} chosen */
export function setTheme(chosen) {
  theme.value = chosen;
  show(chosen);
  keep(KEY, chosen);
}

function chosenBefore() {
  const chosen = kept(KEY);
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

/** @param {"system"|"light"|"dark"} chosen */
function show(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}
