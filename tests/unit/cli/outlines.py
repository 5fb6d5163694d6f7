"""Outlines of runs that never were, made as the server makes them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.outlines.builder import Node
from runglass.outlines.outline import Outline, OutlinePage
from tests.unit import test_outline, test_span_outline
from tests.unit.test_span_outline import Span


class Attempt(NamedTuple):
    """An attempt, with times in milliseconds since the start of its run; without an `end` it goes on."""

    step: str
    path: tuple[int, ...] = ()
    number: int = 1
    status: str = "completed"
    start: int = 0
    end: int | None = 10
    cost: str | None = None
    tokens: int | None = None
    code: str = "CODE_ERROR"


def outline_of(nodes: Sequence[Node], attempts: Iterable[Attempt], *, is_paused: bool = False) -> Outline:
    """The outline of a run, of attempts by step and number."""
    positions: dict[tuple[str, tuple[int, ...]], int] = {}
    rows = [
        test_outline.attempt(
            positions.setdefault((each.step, each.path), len(positions) + 1),
            each.step,
            ",".join(map(str, each.path)),
            each.number,
            each.status,
            at=(each.start / 1000, None if each.end is None else each.end / 1000),
            tokens=each.tokens,
            cost=each.cost,
            error={"code": each.code} if each.status == "failed" else None,
        )
        for each in attempts
    ]
    return test_outline.outline_of(rows, nodes, is_paused=is_paused)


def rows_of(nodes: Sequence[Node], attempts: Iterable[Attempt], *, is_paused: bool = False) -> OutlineRows:
    """The rows as the command has them."""
    return _read(outline_of(nodes, attempts, is_paused=is_paused), limit=100_000)


def span_rows(spans: Sequence[Span], *, entry: int | None = None) -> OutlineRows:
    """The rows of a recorded run as the command has them."""
    return _read(test_span_outline.outline_of(spans, entry=entry), limit=2)


def pages_of(outline: Outline, *, limit: int) -> Iterable[OutlinePage]:
    """The pages in which a server sends it."""
    return (test_outline.page_of(outline, first, limit) for first in range(0, outline.row_count, limit))


def _read(outline: Outline, *, limit: int) -> OutlineRows:
    rows = OutlineRows()
    for page in pages_of(outline, limit=limit):
        rows.add(page)
    rows.finish()
    return rows
