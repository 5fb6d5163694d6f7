"""What a command reads from a server page by page: runs that it looks for, and outlines.

An outline is begun again where the run has gone on between two pages.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from runglass.cli.backends.server import NEWEST, named_run, newest_runs, read_outline
from runglass.cli.commands.runs import write_page
from runglass.log.trace import RunSummary
from runglass.outlines.builder import Node
from runglass.outlines.outline import OutlinePage
from runglass.wire.run_api import RunPage
from tests.outlines import Attempt, outline_of, stored
from tests.unit.cli.outlines import pages_of

IDS = [f"{number:08x}-0000-7000-8000-{number:012x}" for number in range(9_000, 9_000 - NEWEST - 50, -1)]


class Pages(RunPage, frozen=True):
    """A page that, gone through, leads on to those behind it."""

    rest: Sequence[RunSummary] = ()

    def __iter__(self) -> Iterator[RunSummary]:
        yield from self.runs
        yield from self.rest


class Listing:
    """A client of a server that has the runs `IDS`."""

    def __init__(self) -> None:
        self.known = [RunSummary(id=each, flow_id="f", status="completed") for each in IDS]
        self.asked: list[int] = []

    def runs(self, *, limit: int, cursor: str | None = None, **_: Any) -> Pages:
        self.asked.append(limit)
        rest = self.known[int(cursor or 0) :]
        end = str(len(IDS) - len(rest) + limit) if len(rest) > limit else None
        return Pages(runs=rest[:limit], next_cursor=end, rest=rest[limit:])

    def run(self, run_id: str) -> str:
        return run_id


def test_more_runs_than_a_page_has_come_from_several() -> None:
    client: Any = Listing()
    page = newest_runs(client, limit=NEWEST + 30)
    assert [run.id for run in page.runs] == IDS[: NEWEST + 30]
    assert page.next_cursor is not None
    assert client.asked == [100, 100, 30]


def test_a_search_that_takes_too_long_shows_what_was_found_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client: Any = Listing()
    page = newest_runs(client, query="flow:greet", limit=150, patience_s=-1.0)
    assert [run.id for run in page.runs] == IDS[:100]
    write_page(page, limit=150)
    assert "older runs were not searched" in capsys.readouterr().err


def test_a_part_of_an_id_names_a_run_older_than_those_among_which_it_must_be_unique() -> None:
    client: Any = Listing()
    found: Any = named_run(client, IDS[-1][-8:])
    assert found == IDS[-1]


PAGE_ROWS = 4
NODES = [Node("each", "each", "loop", -1), Node("ask", "ask", "step", 0)]


class GoingOn:
    """A run in which something happens before each of the first `changes` pages beyond the first."""

    def __init__(self, *, iterations: int, changes: int) -> None:
        outline = outline_of(NODES, stored(Attempt("ask", (at,)) for at in range(iterations)))
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


def test_all_pages_of_one_outline_are_read_or_as_many_rows_as_fit() -> None:
    run: Any = GoingOn(iterations=5, changes=0)
    rows = read_outline(run, page_rows=PAGE_ROWS)
    assert (len(rows), rows.total, rows.size[0]) == (11, 11, 11)
    assert run.asked == [(0, None), (4, 1), (8, 1)]
    rows = read_outline(run, page_rows=PAGE_ROWS, most_rows=8)
    assert (len(rows), rows.total) == (8, 11)


def test_a_run_that_goes_on_is_begun_again_but_not_for_ever() -> None:
    run: Any = GoingOn(iterations=5, changes=1)
    assert len(read_outline(run, page_rows=PAGE_ROWS)) == 11
    assert run.asked == [(0, None), (4, 1), (0, None), (4, 2), (8, 2)]
    endless: Any = GoingOn(iterations=5, changes=100)
    rows = read_outline(endless, page_rows=PAGE_ROWS)
    assert (len(rows), rows.total, rows.size[0]) == (4, 11, 4)
