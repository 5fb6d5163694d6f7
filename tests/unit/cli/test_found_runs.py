"""Runs that a command looks for on a server: over as many pages as that takes, and how far it looks."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from runglass.cli.backends.server import NEWEST, named_run, newest_runs
from runglass.cli.commands.runs import write_page
from runglass.log.trace import RunSummary
from runglass.wire.run_api import RunPage

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
