"""Pages in the Chromium of the system, as somebody with a browser has them, and what they cost there.

Frames are counted by the page itself: the time from one call of `requestAnimationFrame` to the next, by the
browser's own clock. Without a window Chromium shows 60 frames a second at most, as a screen does, and draws
them with the processor alone. What a page is of is not known here.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from bench.children import BenchError
from bench.memory import private_memory, tree_memory

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FRAMES = Path(__file__).with_name("frames.js")
WIDTH, HEIGHT = 1280, 800
PATIENCE_MS = 120_000
WHEEL_S = 1 / 60
BARE = """<!doctype html><p style="position: fixed">x</p><script>
  const box = document.querySelector("p");
  const move = (at) => { box.style.left = `${at % 500}px`; requestAnimationFrame(move); };
  requestAnimationFrame(move);
</script>"""


class Frames(NamedTuple):
    """Milliseconds from a frame to the next: so many hundredths of them took no longer.

    `busy` is the time of the processor that the page's own thread took for each of them, on average.
    """

    p95: float
    p99: float
    busy: float


class Opened(NamedTuple):
    """Milliseconds since the navigation, `answer_ms` until the first rows had come over the network."""

    answer_ms: float
    first_row_ms: float
    whole_ms: float


class Memory(NamedTuple):
    """Megabytes: objects of its scripts, what its process has for itself, and all that this has in memory."""

    heap: float
    own: float
    resident: float


class Tab:
    """One page, in cookies of its own."""

    def __init__(self, browser: "Browser", page: "Page") -> None:
        self.page = page
        self._browser = browser
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def sign_in(self, address: str, key: str) -> None:
        """Has the session of a key of Runglass from now on. Raises BenchError if the server refuses."""
        answer = self.page.context.request.post(
            f"{address}/api/v1/viewer/session", headers={"Authorization": f"Bearer {key}"}
        )
        if not answer.ok:
            raise BenchError(f"the viewer's sign-in was answered with {answer.status}")
        proof = answer.headers.get("x-viewer-proof", "")
        self.page.add_init_script(f"localStorage.setItem('runglass.proof', {proof!r})")

    def open(self, url: str, *, row: str, answer: str) -> Opened:
        """Opens a page: until an element `row` was painted, and until nothing more was on its way.

        `answer` is a part of the address of what brings the rows.
        """
        self.page.add_init_script(path=FRAMES)
        self.page.add_init_script(f"window.bench.row = {row!r}")
        self.page.goto(url, wait_until="commit")
        seen = self.page.evaluate(
            "(patience) => Promise.race([bench.opened, new Promise((late) => setTimeout(late, patience))])",
            PATIENCE_MS,
        )
        if seen is None:
            raise BenchError(f"the page had not all of its rows after {PATIENCE_MS // 1000} s")
        answer_ms = self.page.evaluate(
            "(part) => performance.getEntriesByType('resource').find((each) => each.name.includes(part))"
            "?.responseEnd ?? 0",
            answer,
        )
        return Opened(answer_ms, seen["firstRowMs"], seen["wholeMs"])

    def frames(self, work: Callable[[], object]) -> Frames:
        """The frames of this page while `work` goes on. Raises BenchError where there are too few."""
        before_ms = self._busy_ms()
        self.page.evaluate("() => { bench.frames = []; bench.isCounting = true; }")
        work()
        found = self.page.evaluate("() => { bench.isCounting = false; return bench.frames; }")
        if len(found) < 2:
            raise BenchError(f"the page showed {len(found)} frames")
        cuts = quantiles(found, n=100, method="inclusive")
        return Frames(cuts[94], cuts[98], (self._busy_ms() - before_ms) / len(found))

    def wheel(self, by: Sequence[float]) -> None:
        """Turns the wheel, with the pointer where it is: so many pixels down each time, 60 times a second."""
        due_s = time.monotonic()
        for pixels in by:
            self.page.mouse.wheel(0, pixels)
            due_s = max(due_s + WHEEL_S, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))

    def took_ms(self, selector: str) -> float:
        """A click on an element: milliseconds until what it did has been painted."""
        spent: float = self.page.evaluate(
            """(selector) => new Promise((done) => {
                const element = document.querySelector(selector);
                const began = performance.now();
                element.click();
                const painted = () => setTimeout(() => done(performance.now() - began));
                setTimeout(() => requestAnimationFrame(painted));
            })""",
            selector,
        )
        return spent

    def received_kb(self) -> float:
        """What came over the network for this page, heads included, in thousands of bytes."""
        found: float = self.page.evaluate(
            "['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type))"
            ".reduce((sum, each) => sum + each.transferSize, 0)"
        )
        return found / 1000

    def typed_ms(self, field: str, text: str, *, done: str) -> float:
        """Fills in a field: milliseconds until what `done`, an expression, waits for has been painted."""
        spent: float = self.page.evaluate(
            f"""([field, text, patience]) => new Promise((resolve, reject) => {{
                setTimeout(() => reject(new Error(`${{text}} was not found`)), patience);
                const element = document.querySelector(field);
                const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
                const began = performance.now();
                set.call(element, text);
                element.dispatchEvent(new Event("input", {{ bubbles: true }}));
                const look = () => requestAnimationFrame(() => {{
                    if (!({done})) return look();
                    setTimeout(() => resolve(performance.now() - began));
                }});
                look();
            }})""",
            [field, text, PATIENCE_MS],
        )
        return spent

    def memory(self) -> Memory:
        """What this page takes, after a collection of what it needs no more.

        Its process is the one of the browser's processes for pages that has most for itself.
        """
        self._session.send("HeapProfiler.collectGarbage")
        heap: float = self._session.send("Runtime.getHeapUsage")["usedSize"]
        browser = self._browser.new_browser_cdp_session()
        processes = browser.send("SystemInfo.getProcessInfo")["processInfo"]
        browser.detach()
        pages = [each["id"] for each in processes if each["type"] == "renderer"]
        largest = max(pages, key=private_memory)
        return Memory(heap / 1e6, private_memory(largest) / 1e6, tree_memory(largest) / 1e6)

    def _busy_ms(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        spent_s: float = next(each["value"] for each in metrics if each["name"] == "ThreadTime")
        return spent_s * 1000


def obstacle() -> str | None:
    """Why no page can be opened on this machine; None where one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: run 'make check' once, which installs it"
    from tests.browser.chromium import MISSING, chromium_path

    return None if chromium_path() else MISSING


@contextmanager
def chromium() -> "Iterator[Browser]":
    """The browser, until the block ends. Raises BenchError for what goes wrong on its pages.

    Meanwhile no event loop can run in this thread.
    """
    from playwright.sync_api import Error

    from tests.browser.chromium import launched

    try:
        with launched() as browser:
            yield browser
    except Error as error:
        raise BenchError(f"the page: {error.message.splitlines()[0]}") from error


@contextmanager
def tab(browser: "Browser") -> Iterator[Tab]:
    """A page with nothing in it, until the block ends."""
    with browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce") as context:
        context.set_default_timeout(PATIENCE_MS)
        yield Tab(browser, context.new_page())


@contextmanager
def bare_tab(browser: "Browser") -> Iterator[Tab]:
    """A page in which a letter moves: what this browser and machine reach at most."""
    with tab(browser) as opened:
        opened.page.add_init_script(path=FRAMES)
        opened.page.goto("about:blank")
        opened.page.set_content(BARE)
        yield opened
