"""Our page of a run: finished runs to show on it, and what somebody does there."""

import asyncio
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench import flows
from bench.browsing import Opened, Tab
from bench.children import BenchError
from bench.stage import add_key
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.wire.run_api import RunRequest

ROW = ".tree .line:not([hidden])"
SCROLLER = ".grid"
FILTER = ".toolbar input[type=search]"
TREE, CANVAS = ".tree", ".grid canvas"
UNFOLD_ALL = "[aria-label='Expand to level'] button:last-child"
OUTLINE = "/trace/outline"
ZOOMS, ZOOM_PX = 40, 120


class Finished(NamedTuple):
    """A data folder with a finished run, and a key to read it."""

    folder: Path
    key: str
    run_id: str


def finished(folder: Path, slug: str, request: RunRequest, *texts: str) -> Finished:
    """Stores the flows in an empty folder and runs one of them. Raises BenchError if it does not complete."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(folder, slug, request, texts))


async def _run(folder: Path, slug: str, request: RunRequest, texts: tuple[str, ...]) -> Finished:
    async with open_runtime(Settings(data=folder, synchronous="NORMAL")) as runtime:
        project = await flows.push(runtime, *texts)
        run_id = await flows.run(runtime, project, slug, request)
        record = await runtime.store.run(run_id)
        if record is None or record.status != "completed":
            raise BenchError(f"the run {run_id!r} that was to be looked at did not complete")
        return Finished(folder, await add_key(runtime), run_id)


def open_run(tab: Tab, address: str, key: str, run_id: str) -> Opened:
    """Signs in and opens the page of a run, until all of its rows have come."""
    tab.sign_in(address, key)
    return tab.open(f"{address}/runs/{run_id}", row=ROW, answer=OUTLINE)


def scroll(tab: Tab, scroller: str, wheels: int) -> None:
    """Through the whole list, from its beginning. Raises BenchError if its end is not reached."""
    tab.page.locator(scroller).hover(position={"x": 100, "y": 100})
    element = tab.page.locator(scroller)
    step: float = element.evaluate("(it) => it.scrollHeight - it.clientHeight") / wheels + 1
    tab.wheel([step] * wheels)
    left: float = element.evaluate("(it) => it.scrollHeight - it.clientHeight - it.scrollTop")
    if left > 2 * step:
        raise BenchError(f"the list was to be scrolled to its end, and {left:,.0f} pixels were left")


def zoom(tab: Tab) -> None:
    """Comes so near on the axis of time that a millisecond fills the page, and goes back."""
    tab.page.hover(CANVAS)
    tab.page.keyboard.down("Control")
    tab.wheel([-ZOOM_PX] * ZOOMS + [ZOOM_PX] * ZOOMS)
    tab.page.keyboard.up("Control")
