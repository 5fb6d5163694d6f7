// Light or dark: as the system says, or as somebody has chosen in this browser.
import { signal } from "./html.js";

const KEY = "runglass.theme";

const { theme: shown } = document.documentElement.dataset;

/** @type {import("../vendor/signals.js").Signal<"system"|"light"|"dark">} */
export const theme = signal(shown === "light" || shown === "dark" ? shown : "system");

/** @param {"system"|"light"|"dark"} chosen */
export function setTheme(chosen) {
  theme.value = chosen;
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // A browser that keeps nothing forgets the choice with the page.
  }
}
