"""Outlines of runs that never were, made as the server makes them, and their rows as people read them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from runglass.log.trace import StepTrace, TokenBreakdown
from runglass.outlines.builder import AttemptRow, Node, OutlineBuilder
from runglass.outlines.outline import Outline, OutlinePage
from runglass.support.clock import iso_ms
from tests.records import there

BEGAN_MS = 1_767_225_600_000
"""Milliseconds since 1970 at which their runs begin."""

Row = dict[str, Any]


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
    error: Any = None
    finish: str | None = None


def stored(attempts: Iterable[Attempt]) -> Iterator[AttemptRow]:
    """The attempts as the store has them, where each step of an iteration began in this order."""
    positions: dict[tuple[str, tuple[int, ...]], int] = {}
    for each in attempts:
        tokens = each.tokens
        step = StepTrace(
            step_id=each.step,
            attempt=each.number,
            status=each.status,
            started_at=iso_ms(BEGAN_MS + each.start),
            completed_at=None if each.end is None else iso_ms(BEGAN_MS + each.end),
            tokens=None if tokens is None else TokenBreakdown(prompt=tokens, completion=0, total=tokens),
            cost_usd=each.cost,
            error_context=each.error,
            finish_reason=each.finish,
            input_context={"startedAt": "not a time", "tokens": [{}]},
        )
        position = positions.setdefault((each.step, each.path), len(positions) + 1)
        path = ",".join(map(str, each.path))
        yield position, each.step, path, each.number, each.status, msgspec.json.encode(step)


def outline_of(
    nodes: Sequence[Node],
    rows: Iterable[AttemptRow],
    *,
    started_at: str | None = iso_ms(BEGAN_MS),
    is_paused: bool = False,
) -> Outline:
    """The outline of a run of which the store has these attempts."""
    builder = OutlineBuilder(nodes, started_at=started_at, seq=7, is_paused=is_paused)
    builder.add(rows)
    *_, outline = builder.finish()
    return there(outline)


def page_of(outline: Outline, first: int = 0, count: int = 1_000_000) -> OutlinePage:
    return msgspec.json.decode(b"".join(outline.json_parts(first, count)), type=OutlinePage, strict=True)


def pages_of(outline: Outline, *, limit: int) -> Iterator[OutlinePage]:
    """The pages in which a server sends it."""
    return (page_of(outline, first, limit) for first in range(0, outline.row_count, limit))


def rows_of(outline: Outline) -> list[Row]:
    return rows_in(b"".join(outline.json_parts(0, 1_000_000)))


def rows_in(page: bytes) -> list[Row]:
    """The rows of an answer as objects, with words in place of numbers."""
    found = msgspec.json.decode(page, type=OutlinePage, strict=True)
    columns = msgspec.to_builtins(found.columns)
    rows: list[Row] = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    for row in rows:
        row["kind"], row["status"] = found.kinds[row["kind"]], found.statuses[row["status"]]
        row["name"] = found.names[row["name"]]
    return rows


def lines_of(rows: list[Row], *columns: str) -> list[str]:
    """Each row as `INDENT name[index]#attempt`, with these columns behind it."""
    return [
        "  " * row["depth"]
        + row["name"]
        + (f"[{row['index']}]" if row["index"] >= 0 else "")
        + (f"#{row['attempt']}" if row["attempt"] else "")
        + "".join(f" {row[column]}" for column in columns)
        for row in rows
    ]
