"""What a command reads from a server page by page: runs that it looks for, and outlines.

An outline is begun again where the run has gone on between two pages.
"""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from runglass import Client
from runglass.cli.backends.server import NEWEST, named_run, newest_runs, read_outline
from runglass.cli.commands.runs import write_page
from runglass.outlines.builder import Node
from tests.outlines import Attempt, outline_of, pages_of, stored
from tests.unit.client.scripted import Scene, ScriptedServer, answers, page
from tests.unit.client.sides import KEY

IDS = [f"{number:08x}-0000-7000-8000-{number:012x}" for number in range(9_000, 9_000 - NEWEST - 50, -1)]
LISTED = [page(*IDS[:100], cursor="a"), page(*IDS[100:200], cursor="b"), page(*IDS[200:], cursor="c"), page()]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with Client(KEY, base_url=server.url) as client:
        yield client


def test_more_runs_than_a_page_has_come_from_several(server: ScriptedServer, client: Client) -> None:
    server.plays(*LISTED)
    found = newest_runs(client, limit=NEWEST + 50)
    assert ([run.id for run in found.runs], found.next_cursor) == (IDS, "c")
    assert server.targets("/flow-runs?") == ["limit=100", "limit=100&cursor=a", "limit=50&cursor=b"]


def test_a_search_that_takes_too_long_shows_what_was_found_and_says_so(
    server: ScriptedServer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plays(*LISTED)
    found = newest_runs(client, query="flow:greet", limit=150, patience_s=-1.0)
    assert [run.id for run in found.runs] == IDS[:100]
    write_page(found, limit=150)
    assert "older runs were not searched" in capsys.readouterr().err


def test_a_run_is_named_by_its_id_or_a_part_that_must_be_unique_among_newer_ones_or_as_the_last(
    server: ScriptedServer, client: Client
) -> None:
    old = IDS[-1]
    for name in (old.upper(), old[-8:].upper(), old[:-4]):
        server.plays(*LISTED)
        assert named_run(client, name).execution_id == old
    server.plays(*LISTED)
    assert named_run(client, "last").execution_id == IDS[0]


PATH = "/flow-runs/r/trace/outline?"
PAGE_ROWS = 4
NODES = [Node("each", "each", "loop", -1), Node("ask", "ask", "step", 0)]
OUTLINE = outline_of(NODES, stored(Attempt("ask", (at,)) for at in range(5)))
PAGES = {page.first: page for page in pages_of(OUTLINE, limit=PAGE_ROWS)}


def rows_from(first: int, *, seq: int) -> Scene:
    """A page of the outline of a run with so many events."""
    return answers(replace(PAGES[first], seq=seq))


def test_all_pages_of_one_outline_are_read_or_as_many_rows_as_fit(
    server: ScriptedServer, client: Client
) -> None:
    server.plays(*(rows_from(first, seq=1) for first in (0, 4, 8)))
    rows = read_outline(client.run("r"), page_rows=PAGE_ROWS)
    assert (len(rows), rows.total, rows.size[0]) == (11, 11, 11)
    queries = ["limit=4", "after=3&limit=4&seq=1", "after=7&limit=4&seq=1"]
    assert server.targets(PATH) == queries
    server.plays(rows_from(0, seq=1), rows_from(4, seq=1))
    rows = read_outline(client.run("r"), page_rows=PAGE_ROWS, most_rows=8)
    assert (len(rows), rows.total) == (8, 11)


def test_a_run_that_goes_on_is_begun_again_but_not_for_ever(server: ScriptedServer, client: Client) -> None:
    begun = [rows_from(0, seq=1), rows_from(4, seq=2), rows_from(0, seq=2)]
    server.plays(*begun, rows_from(4, seq=2), rows_from(8, seq=2))
    assert len(read_outline(client.run("r"), page_rows=PAGE_ROWS)) == 11
    assert server.targets(PATH)[2:4] == ["limit=4", "after=3&limit=4&seq=2"]
    server.plays(*begun, rows_from(4, seq=3), rows_from(0, seq=3), rows_from(4, seq=4))
    rows = read_outline(client.run("r"), page_rows=PAGE_ROWS)
    assert (len(rows), rows.total, rows.size[0]) == (4, 11, 4)
