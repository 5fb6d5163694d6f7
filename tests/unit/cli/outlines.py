"""Outlines of runs that never were, as the command has them."""

from collections.abc import Iterable, Sequence

from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.outlines.builder import Node
from runglass.outlines.outline import Outline, OutlinePage
from tests.outlines import Attempt, outline_of, page_of, stored
from tests.unit import test_span_outline
from tests.unit.test_span_outline import Span


def rows_of(nodes: Sequence[Node], attempts: Iterable[Attempt], *, is_paused: bool = False) -> OutlineRows:
    """The rows as the command has them."""
    return _read(outline_of(nodes, stored(attempts), is_paused=is_paused), limit=100_000)


def span_rows(spans: Sequence[Span], *, entry: int | None = None) -> OutlineRows:
    """The rows of a recorded run as the command has them."""
    return _read(test_span_outline.outline_of(spans, entry=entry), limit=2)


def pages_of(outline: Outline, *, limit: int) -> Iterable[OutlinePage]:
    """The pages in which a server sends it."""
    return (page_of(outline, first, limit) for first in range(0, outline.row_count, limit))


def _read(outline: Outline, *, limit: int) -> OutlineRows:
    rows = OutlineRows()
    for page in pages_of(outline, limit=limit):
        rows.add(page)
    rows.finish()
    return rows
