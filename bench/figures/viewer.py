"""Very long runs in the viewer: opened, scrolled, zoomed, followed as they go on, and what their page takes.

Then a trace of some length, beside a peer's page.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from bench import nested, trace_pages
from bench.browsing import Frames, Memory, Opened, bare_tab, chromium, obstacle, tab
from bench.children import BenchError
from bench.long_runs import finished_run, forget_outline, going_run, wait_for_outline
from bench.rows import Goal, Row
from bench.run_page import SCROLLER, UNFOLD_ALL, Finished, open_run, scroll, zoom
from bench.stage import Stage, serve
from runglass import Client

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OF_ENDS = "; of a long run, its beginning and end"
BARE_S = 2.0
READY_S = 120
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
    """What is measured of one run in one turn, and of an empty page beside it.

    `unmade` was opened while the server made the outline, `first` by the first caller of a server.
    """

    unmade: Opened
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
            run = finished_run(folder, steps)
            name = f"{steps:,} steps"
            goals = LONG_GOALS if steps >= LONG_STEPS else GOALS
            with chromium() as browser:
                found = [_round(stage, browser, run) for _ in range(stage.sizes.rounds)]
            yield from _opened_rows(name, goals, found)
            # Some minutes of waits more than are needed, for a machine on which all takes longer.
            rest_s = 2 * stage.sizes.rounds * (stage.sizes.followed_s + BARE_S) + 60
            waits = min(nested.MOST_WAITS, int(rest_s) * nested.WAITS_PER_S)
            going = run._replace(run_id=going_run(folder, steps, waits=waits))
            with chromium() as browser:
                yield from _followed_rows(stage, browser, going, name, goals)
    yield from trace_pages.rows(stage)


def _round(stage: Stage, browser: "Browser", run: Finished) -> _Round:
    with bare_tab(browser) as bare:
        at_most = bare.frames(lambda: time.sleep(BARE_S))
        bare_memory = bare.memory()
    forget_outline(run.folder)
    with serve(run.folder) as server:
        with tab(browser) as page:
            unmade = open_run(page, server.address, run.key, run.run_id)
        wait_for_outline(run.folder)
    with serve(run.folder) as server:
        with tab(browser) as page:
            first = open_run(page, server.address, run.key, run.run_id)
        with tab(browser) as page:
            return _Round(
                unmade=unmade,
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
        figure=f"{name}: first rows, after the outline's response",
        unit="ms",
        ours=values(lambda each: each.again.first_row_ms - each.again.answer_ms),
        goal=Goal(at=goals.after_answer_ms),
        note="in headless Chromium, which draws with the CPU",
    )
    yield Row(
        figure=f"{name}: first rows, after navigation",
        unit="ms",
        ours=values(lambda each: each.again.first_row_ms),
        goal=Goal(at=goals.opened_ms),
    )
    yield Row(
        figure=f"{name}: first rows, for the first caller after a start",
        unit="ms",
        ours=values(lambda each: each.first.first_row_ms),
        goal=Goal(at=goals.opened_ms),
    )
    yield Row(
        figure=f"{name}: first rows, just after its end",
        unit="ms",
        ours=values(lambda each: each.unmade.first_row_ms),
        note=f"while the server computes the outline{OF_ENDS}",
    )
    yield Row(
        figure=f"{name}: all rows, just after its end",
        unit="ms",
        ours=values(lambda each: each.unmade.whole_ms),
        note="once the server has computed the outline",
    )
    yield Row(
        figure=f"{name}: all rows, after navigation",
        unit="ms",
        ours=values(lambda each: each.again.whole_ms),
    )
    yield Row(figure=f"{name}: all rows unfolded", unit="ms", ours=values(lambda each: each.unfolded_ms))
    bare = [each.bare for each in found]
    yield from _frame_rows(f"{name}: frames while scrolling", [each.scrolled for each in found], bare, goals)
    yield from _frame_rows(f"{name}: frames while zooming", [each.zoomed for each in found], bare, goals)
    last = found[-1]
    yield Row(
        figure=f"{name}: memory of the tab",
        unit="MB",
        ours=values(lambda each: each.memory.own),
        limit=values(lambda each: each.bare_memory.own),
        goal=Goal(at=goals.memory_mb),
        note="its process's own, after scrolling; the limit is an empty page. The heap without arrays is"
        f" {last.memory.heap:.1f} MB; with shared memory the process has {last.memory.resident:.0f} MB, that"
        f" of an empty page {last.bare_memory.resident:.0f} MB",
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
        note=f"the page's thread is busy for {busy:.1f} ms of each{note}",
    )
    yield Row(
        figure=f"{figure}, p99",
        unit="ms",
        ours=[each.p99 for each in ours],
        limit=[each.p99 for each in bare],
    )


def _followed_rows(
    stage: Stage, browser: "Browser", run: Finished, name: str, goals: _Goals
) -> Iterator[Row]:
    """Of a run that has as many steps behind it, and goes on when it has a server. Its page is the first."""
    seconds, rounds = stage.sizes.followed_s, stage.sizes.rounds
    found, bare, rates = [], [], []
    with ExitStack() as stack:
        address = stack.enter_context(serve(run.folder)).address
        client = stack.enter_context(Client(run.key, base_url=f"{address}/api/v1"))
        _wait_until_resumed(client, run.run_id)
        page = stack.enter_context(tab(browser))
        opened = open_run(page, address, run.key, run.run_id)
        page.page.keyboard.press(".")
        empty = stack.enter_context(bare_tab(browser))
        for _ in range(rounds):
            before, began_s = _completed(client, run.run_id), time.monotonic()
            shown = page.page.url
            found.append(page.frames(lambda: time.sleep(seconds)))
            if page.page.url == shown:
                raise BenchError(f"the page showed for {seconds} s the same step of a run that goes on")
            ended = _completed(client, run.run_id) - before
            rates.append(2 * ended / (time.monotonic() - began_s))
            bare.append(empty.frames(lambda: time.sleep(BARE_S)))
        client.run(run.run_id).cancel()
    yield Row(
        figure=f"{name}: first rows, while active",
        unit="ms",
        ours=[opened.first_row_ms],
        goal=Goal(at=goals.opened_ms),
        note=f"for the first caller, once{OF_ENDS}",
    )
    yield Row(
        figure=f"{name}: all rows, while active",
        unit="ms",
        ours=[opened.whole_ms],
        note="meanwhile the server computes the outline",
    )
    yield from _frame_rows(
        f"{name}: frames while following {2 * nested.WAITS_PER_S:,} events/s",
        found,
        bare,
        goals,
        note=f"; {median(rates):,.0f} events/s were recorded",
    )


def _completed(client: Client, run_id: str) -> int:
    totals = client.run(run_id).summary().totals
    return totals.completed if totals else 0


def _wait_until_resumed(client: Client, run_id: str) -> None:
    """Returns once the run has recorded more than it had when the server began."""
    until_s, before = time.monotonic() + READY_S, None
    while time.monotonic() < until_s:
        completed = _completed(client, run_id)
        if before is not None and completed > before:
            return
        before = completed
        time.sleep(POLL_S)
    raise BenchError(f"the run {run_id!r} that was to be followed did not go on within {READY_S} s")
