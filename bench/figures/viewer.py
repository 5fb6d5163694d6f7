"""Very long runs in the viewer: opened, scrolled, zoomed, followed as they go on, and what their page takes.

Then a trace of some length, beside a peer's page.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench import flows, nested, trace_pages
from bench.browsing import Frames, Memory, Opened, bare_tab, chromium, obstacle, tab
from bench.children import BenchError
from bench.rows import Goal, Row
from bench.run_page import SCROLLER, UNFOLD_ALL, Finished, finished, open_run, scroll, zoom
from bench.stage import Stage, serve
from runglass import Client
from runglass.errors import APIError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BARE_S = 2.0
READY_S = 1800
POLL_S = 0.2


class _Goals(NamedTuple):
    after_answer_ms: float | None
    opened_ms: float | None
    frame_ms: float
    memory_mb: float


FRAME_MS = 17
"""At 60 frames a second none is missed: one takes 16.7 ms, and the clock is rounded."""
LONG_STEPS = 1_000_000
GOALS = _Goals(500, None, FRAME_MS, 150)
LONG_GOALS = _Goals(None, 3000, 2 * FRAME_MS, 400)


class _Round(NamedTuple):
    """What is measured of one run in one turn, and of an empty page beside it."""

    first: Opened
    again: Opened
    received_kb: float
    unfolded_ms: float
    scrolled: Frames
    zoomed: Frames
    memory: Memory
    bare: Frames
    bare_memory: Memory


def rows(stage: Stage) -> Iterator[Row]:
    if (reason := obstacle()) is not None:
        raise BenchError(reason)
    for steps in stage.sizes.viewer_steps:
        with stage.new_folder() as folder:
            run = finished(folder, "nested", nested.request(steps), nested.NESTED, nested.FOLLOWED)
            name = f"a run of {steps:,} steps in the viewer"
            goals = LONG_GOALS if steps >= LONG_STEPS else GOALS
            with chromium() as browser:
                yield from _opened_rows(
                    name, goals, [_round(stage, browser, run) for _ in range(stage.sizes.rounds)]
                )
                yield from _followed_rows(stage, browser, run, name, goals, steps)
    yield from trace_pages.rows(stage)


def _round(stage: Stage, browser: "Browser", run: Finished) -> _Round:
    with bare_tab(browser) as bare:
        at_most = bare.frames(lambda: time.sleep(BARE_S))
        bare_memory = bare.memory()
    with serve(run.folder) as server:
        with tab(browser) as page:
            # The server has to make the outline of the run; who comes later finds it made.
            first = open_run(page, server.address, run.key, run.run_id)
        with tab(browser) as page:
            return _Round(
                first=first,
                again=open_run(page, server.address, run.key, run.run_id),
                received_kb=page.received_kb(),
                unfolded_ms=page.took_ms(UNFOLD_ALL),
                scrolled=page.frames(lambda: scroll(page, SCROLLER, stage.sizes.wheels)),
                zoomed=page.frames(lambda: zoom(page)),
                memory=page.memory(),
                bare=at_most,
                bare_memory=bare_memory,
            )


def _opened_rows(name: str, goals: _Goals, found: list[_Round]) -> Iterator[Row]:
    def values(pick: Callable[[_Round], float]) -> list[float]:
        return [pick(each) for each in found]

    yield Row(
        figure=f"{name}: first rows painted, after the answer of the outline",
        unit="ms",
        ours=values(lambda each: each.again.first_row_ms - each.again.answer_ms),
        goal=Goal(at=goals.after_answer_ms),
        note="in Chromium without a window, which draws with the processor",
    )
    yield Row(
        figure=f"{name}: the same, after the navigation",
        unit="ms",
        ours=values(lambda each: each.again.first_row_ms),
        goal=Goal(at=goals.opened_ms),
    )
    yield Row(
        figure=f"{name}: the same, where the server has yet to make the outline",
        unit="ms",
        ours=values(lambda each: each.first.first_row_ms),
        goal=Goal(at=goals.opened_ms),
        note="the first caller after the start of the server",
    )
    yield Row(
        figure=f"{name}: all rows have come, after the navigation",
        unit="ms",
        ours=values(lambda each: each.again.whole_ms),
    )
    yield Row(figure=f"{name}: all rows unfolded", unit="ms", ours=values(lambda each: each.unfolded_ms))
    bare = [each.bare for each in found]
    yield from _frame_rows(
        f"{name}: frames while scrolling through all of it", [each.scrolled for each in found], bare, goals
    )
    yield from _frame_rows(f"{name}: frames while zooming", [each.zoomed for each in found], bare, goals)
    last = found[-1]
    yield Row(
        figure=f"{name}: memory of the tab",
        unit="MB",
        ours=values(lambda each: each.memory.own),
        limit=values(lambda each: each.bare_memory.own),
        goal=Goal(at=goals.memory_mb),
        note="what its process shares with no other, after scrolling; the limit is an empty page. Without its"
        f" arrays its heap is {last.memory.heap:.1f} MB; with what it shares its process has"
        f" {last.memory.resident:.0f} MB, that of an empty page {last.bare_memory.resident:.0f} MB",
    )
    yield Row(
        figure=f"{name}: bytes over the network",
        unit="kB",
        ours=values(lambda each: each.received_kb),
        note="modules, styles and outline",
    )


def _frame_rows(
    figure: str, ours: list[Frames], bare: list[Frames], goals: _Goals, *, note: str = ""
) -> Iterator[Row]:
    """The p95, which is judged, and the p99, beside those of an empty page."""
    busy = median(each.busy for each in ours)
    yield Row(
        figure=f"{figure}, p95",
        unit="ms",
        ours=[each.p95 for each in ours],
        limit=[each.p95 for each in bare],
        goal=Goal(at=goals.frame_ms),
        note="from one frame to the next, of at most 60 a second; the limit is a page in which a letter"
        f" moves. The page's thread is busy for {busy:.1f} ms of each{note}",
    )
    yield Row(
        figure=f"{figure}, p99",
        unit="ms",
        ours=[each.p99 for each in ours],
        limit=[each.p99 for each in bare],
    )


def _followed_rows(
    stage: Stage, browser: "Browser", run: Finished, name: str, goals: _Goals, steps: int
) -> Iterator[Row]:
    """Of a run that has recorded as many steps before."""
    seconds, rounds = stage.sizes.followed_s, stage.sizes.rounds
    found, bare, rates = [], [], []
    with ExitStack() as stack:
        address = stack.enter_context(serve(run.folder)).address
        client = stack.enter_context(Client(run.key, base_url=f"{address}/api/v1"))
        # Some minutes of waits more than are needed, for a machine on which all takes longer.
        waits = min(nested.MOST_WAITS, int(2 * rounds * (seconds + BARE_S) + 60) * nested.WAITS_PER_S)
        job = client.flow(f"{flows.ORG}/{flows.PROJECT}/followed").execute_async(
            parameters=nested.parameters(steps, waits=waits), version="draft"
        )
        _wait_until_ready(client, job.execution_id)
        page = stack.enter_context(tab(browser))
        open_run(page, address, run.key, job.execution_id)
        page.page.keyboard.press(".")
        empty = stack.enter_context(bare_tab(browser))
        for _ in range(rounds):
            before, began_s = _completed(client, job.execution_id), time.monotonic()
            shown = page.page.url
            found.append(page.frames(lambda: time.sleep(seconds)))
            if page.page.url == shown:
                raise BenchError(f"the page showed for {seconds} s the same step of a run that goes on")
            ended = _completed(client, job.execution_id) - before
            rates.append(2 * ended / (time.monotonic() - began_s))
            bare.append(empty.frames(lambda: time.sleep(BARE_S)))
        client.run(job.execution_id).cancel()
    yield from _frame_rows(
        f"{name}: frames while following {2 * nested.WAITS_PER_S:,} events/s",
        found,
        bare,
        goals,
        note=f"; {median(rates):,.0f} events/s were recorded, on the same processors",
    )


def _completed(client: Client, run_id: str) -> int:
    totals = client.run(run_id).summary().totals
    return totals.completed if totals else 0


def _wait_until_ready(client: Client, run_id: str) -> None:
    """Returns once the steps before the waits have been recorded."""
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s:
        try:
            client.run(run_id).step_trace("ready")
        except APIError as error:
            if error.code != "STEP_NOT_FOUND":
                raise
            time.sleep(POLL_S)
        else:
            return
    raise BenchError(f"the run {run_id!r} that was to be followed was not ready after {READY_S} s")
