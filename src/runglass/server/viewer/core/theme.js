// Light or dark: as the system says, or as somebody has chosen in this browser.
import { signal } from "./html.js";

const KEY = "runglass.theme";

/** @type {import("../vendor/signals.js").Signal<"system"|"light"|"dark">} */
export const theme = signal(kept());
show(theme.peek());

/** @param {"system"|"light"|"dark"} chosen */
export function setTheme(chosen) {
  theme.value = chosen;
  show(chosen);
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // A browser that keeps nothing forgets the choice with the page.
  }
}

function kept() {
  try {
    const chosen = localStorage.getItem(KEY);
    if (chosen === "light" || chosen === "dark") return chosen;
  } catch {
    // A browser that keeps nothing follows the system's theme.
  }
  return "system";
}

/** @param {"system"|"light"|"dark"} chosen */
function show(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}
