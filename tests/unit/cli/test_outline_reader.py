"""An outline is read page by page, and begun again where the run has gone on between two pages."""

from typing import Any

import msgspec

from runglass.cli.backends.server import read_outline
from runglass.outlines.builder import Node
from runglass.outlines.outline import OutlinePage
from tests.unit.cli.outlines import Attempt, outline_of, pages_of

PAGE_ROWS = 4
NODES = [Node("each", "each", "loop", -1), Node("ask", "ask", "step", 0)]


class GoingOn:
    """A run in which something happens before each of the first `changes` pages beyond the first."""

    def __init__(self, *, iterations: int, changes: int) -> None:
        outline = outline_of(NODES, [Attempt("ask", (at,)) for at in range(iterations)])
        self._pages = {page.first: page for page in pages_of(outline, limit=PAGE_ROWS)}
        self._changes = changes
        self._seq = 1
        self.asked: list[tuple[int, Any]] = []

    def outline(self, *, limit: int, after: int = -1, seq: int | None = None) -> OutlinePage:
        self.asked.append((after + 1, seq))
        if after >= 0 and self._changes:
            self._changes -= 1
            self._seq += 1
        return msgspec.structs.replace(self._pages[after + 1], seq=self._seq)


def test_all_pages_of_one_outline_are_read() -> None:
    run: Any = GoingOn(iterations=5, changes=0)
    rows = read_outline(run, page_rows=PAGE_ROWS)
    assert (len(rows), rows.total, rows.size[0]) == (11, 11, 11)
    assert run.asked == [(0, None), (4, 1), (8, 1)]


def test_a_run_that_goes_on_is_begun_again_but_not_for_ever() -> None:
    run: Any = GoingOn(iterations=5, changes=1)
    assert len(read_outline(run, page_rows=PAGE_ROWS)) == 11
    assert run.asked == [(0, None), (4, 1), (0, None), (4, 2), (8, 2)]
    endless: Any = GoingOn(iterations=5, changes=100)
    rows = read_outline(endless, page_rows=PAGE_ROWS)
    assert (len(rows), rows.total, rows.size[0]) == (4, 11, 4)


def test_no_more_rows_are_read_than_fit() -> None:
    run: Any = GoingOn(iterations=5, changes=0)
    rows = read_outline(run, page_rows=PAGE_ROWS, most_rows=8)
    assert (len(rows), rows.total) == (8, 11)
