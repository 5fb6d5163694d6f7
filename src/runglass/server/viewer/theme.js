// Runs before the first paint, so that a chosen theme does not flash as the other one.
try {
  const theme = localStorage.getItem("runglass.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing follows the system's theme.
}
