"""The same trace in our page and in a peer's, in turns: opened, searched through, scrolled through."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from bench import flows
from bench.browsing import Frames, Opened, chromium, tab
from bench.rows import Goal, Row
from bench.run_page import FILTER, ROW, SCROLLER, UNFOLD_ALL, finished, open_run, scroll
from bench.samples import SENTENCE
from bench.stage import Stage, serve

PEER = "phoenix"
ITERATION = 20
"""Spans of an iteration, its own included: the peer's server makes them so as well."""
FOUND, OTHER = "step-7", "step-8"
TIMES_SOONER = 20

THEIR_ROW = "ul[data-testid=trace-tree] li"
THEIR_SCROLLER = "ul[data-testid=trace-tree]"
THEIR_SEARCH = "input[aria-label='Search trace tree']"
THEIR_ANSWER = "/graphql"

_STEPS = "\n".join(
    f"      - {{id: step-{number}, type: passthrough, input: {{text: '{SENTENCE * 4}'}}}}"
    for number in range(1, ITERATION)
)
TREE = f"""
slug: tree
steps:
  - id: each
    type: loop
    over: items
    max_concurrency: 4
    steps:
{_STEPS}
"""


class _Looked(NamedTuple):
    opened: Opened
    searched_ms: float
    scrolled: Frames


def rows(stage: Stage) -> Iterator[Row]:
    iterations = stage.sizes.page_spans // ITERATION
    # The loop is a span as well.
    spans = iterations * ITERATION + 1
    with ExitStack() as stack:
        folder = stack.enter_context(stage.new_folder())
        run = finished(folder, "tree", flows.loop_of(iterations, trace=True), TREE)
        peer = stage.phoenix
        their_page = None if peer is None else peer.ask(do="write_tree", spans=spans)["page"]
        address = stack.enter_context(serve(folder)).address
        browser = stack.enter_context(chromium())
        ours, theirs = [], []
        for _ in range(stage.sizes.rounds):
            with tab(browser) as page:
                opened = open_run(page, address, run.key, run.run_id)
                page.took_ms(UNFOLD_ALL)
                frames = page.frames(lambda: scroll(page, SCROLLER, stage.sizes.wheels))
                alone = f"{_is_seen(FOUND)} && !{_is_seen(OTHER)}"
                ours.append(_Looked(opened, page.typed_ms(FILTER, FOUND, done=alone), frames))
            if their_page is None:
                continue
            with tab(browser) as page:
                opened = page.open(their_page, row=THEIR_ROW, answer=THEIR_ANSWER)
                frames = page.frames(lambda: scroll(page, THEIR_SCROLLER, stage.sizes.wheels))
                shown = page.page.locator(THEIR_ROW).count()
                fewer = f"document.querySelectorAll('{THEIR_ROW}').length < {shown / 2}"
                theirs.append(_Looked(opened, page.typed_ms(THEIR_SEARCH, FOUND, done=fewer), frames))
    yield from _rows(spans, ours, theirs)


def _is_seen(step: str) -> str:
    """An expression: whether a row of this step is on our page."""
    return (
        f"[...document.querySelectorAll('{ROW} .label')].some((each) => each.textContent.trim() === '{step}')"
    )


def _rows(spans: int, ours: list[_Looked], theirs: list[_Looked]) -> Iterator[Row]:
    name = f"a page of {spans:,} spans"
    measures: dict[str, Callable[[_Looked], float]] = {
        "first rows, after navigation": lambda each: each.opened.first_row_ms,
        f"searched for {FOUND!r}": lambda each: each.searched_ms,
        "frames while scrolling, p95": lambda each: each.scrolled.p95,
        "CPU time of each of these frames": lambda each: each.scrolled.busy,
    }
    for what, pick in measures.items():
        yield Row(
            figure=f"{name}: {what}",
            unit="ms",
            ours=[pick(each) for each in ours],
            peers={PEER: [pick(each) for each in theirs]},
            # No page shows more frames than the screen does.
            goal=Goal() if "frames" in what else Goal(over_peer=TIMES_SOONER),
            note="the peer's page shows the first 1,000 only",
        )
