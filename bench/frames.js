// Put into a page before its own scripts: when rows were first seen, and how long after each other frames came.
(() => {
  const bench = { row: "", frames: [], isCounting: false };
  /** Milliseconds since the navigation: until a row was painted, and until no more were on their way. */
  const seen = { firstRowMs: 0, wholeMs: 0 };
  bench.opened = new Promise((resolve) => { bench.resolve = resolve; });
  let before = 0;

  const isThere = (selector) => document.querySelector(selector) !== null;

  // A message that is sent in a frame arrives once that frame has been painted.
  const painted = (hear) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => hear(performance.now());
    channel.port2.postMessage(0);
  };

  const look = () => {
    if (!seen.firstRowMs && isThere(bench.row)) {
      seen.firstRowMs = -1;
      painted((ms) => { seen.firstRowMs = ms; });
    }
    if (seen.firstRowMs > 0 && !seen.wholeMs && !isThere(".progress")) {
      seen.wholeMs = -1;
      painted((ms) => {
        seen.wholeMs = ms;
        bench.resolve(seen);
      });
    }
  };

  const frame = (at) => {
    if (bench.isCounting) bench.frames.push(at - before);
    before = at;
    if (bench.row && !seen.wholeMs) look();
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  window.bench = bench;
})();
