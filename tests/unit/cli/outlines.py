"""Outlines of runs that never were, made as the server makes them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.outlines.builder import AttemptRow, Node, OutlineBuilder
from runglass.outlines.outline import Outline, OutlinePage
from tests.unit.test_span_outline import Span
from tests.unit.test_span_outline import outline_of as span_outline_of

START = datetime(2026, 1, 1, tzinfo=UTC)


class Attempt(NamedTuple):
    """An attempt, with times in milliseconds since the start of its run; without an `end` it goes on."""

    step: str
    path: tuple[int, ...] = ()
    number: int = 1
    status: str = "completed"
    start: int | None = 0
    end: int | None = 10
    cost: str | None = None
    tokens: int = 0
    code: str = "CODE_ERROR"
    finish: str | None = None


def outline_of(nodes: Iterable[Node], attempts: Iterable[Attempt], *, is_paused: bool = False) -> Outline:
    """The outline of a run that started at START, of attempts by step and number."""
    builder = OutlineBuilder(nodes, started_at=START.isoformat(), seq=9, is_paused=is_paused)
    positions: dict[tuple[str, tuple[int, ...]], int] = {}
    builder.add([_row(each, positions) for each in attempts])
    return next(made for made in builder.finish() if made is not None)


def span_rows(spans: Iterable[Span], *, entry: int | None = None) -> OutlineRows:
    """The rows of a recorded run as the command has them."""
    rows = OutlineRows()
    for page in pages_of(span_outline_of(list(spans), entry=entry), limit=2):
        rows.add(page)
    rows.finish()
    return rows


def pages_of(outline: Outline, *, limit: int) -> Iterable[OutlinePage]:
    """The pages in which a server sends it."""
    for first in range(0, outline.row_count, limit):
        yield msgspec.json.decode(b"".join(outline.json_parts(first, limit)), type=OutlinePage)


def rows_of(nodes: Iterable[Node], attempts: Iterable[Attempt], *, is_paused: bool = False) -> OutlineRows:
    """The rows as the command has them."""
    rows = OutlineRows()
    for page in pages_of(outline_of(nodes, attempts, is_paused=is_paused), limit=100_000):
        rows.add(page)
    rows.finish()
    return rows


def _row(attempt: Attempt, positions: dict[tuple[str, tuple[int, ...]], int]) -> AttemptRow:
    position = positions.setdefault((attempt.step, attempt.path), len(positions) + 1)
    data: dict[str, Any] = {}
    if attempt.start is not None:
        data["startedAt"] = (START + timedelta(milliseconds=attempt.start)).isoformat()
        if attempt.end is not None:
            data["completedAt"] = (START + timedelta(milliseconds=attempt.end)).isoformat()
    if attempt.status == "failed":
        data["errorContext"] = {"code": attempt.code}
    if attempt.finish is not None:
        data["finishReason"] = attempt.finish
    if attempt.tokens:
        data["tokens"] = {"prompt": attempt.tokens, "completion": 0, "total": attempt.tokens}
    if attempt.cost is not None:
        data["costUsd"] = attempt.cost
    path = ",".join(map(str, attempt.path))
    return position, attempt.step, path, attempt.number, attempt.status, msgspec.json.encode(data)
