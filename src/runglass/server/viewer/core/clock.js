// The time of now for relative times: it moves on while somebody looks.
import { signal } from "./html.js";

/** Milliseconds, each second while the page is seen. */
export const now = signal(Date.now());

setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);
document.addEventListener("visibilitychange", () => { now.value = Date.now(); });
