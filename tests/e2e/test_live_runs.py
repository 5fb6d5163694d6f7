"""The live list of runs as a program has it: behind a page, by query, and across connections that are cut."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pytest

from runglass import Client
from runglass.testing import RunningServer
from runglass.wire.run_api import RunChange
from tests.browser.cutting_proxy import cutting_proxy
from tests.servers import server_with

BRIEF = "slug: brief\nsteps: [{id: only, type: passthrough}]\n"


server = server_with(BRIEF, BRIEF.replace("brief", "other"))


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.key, base_url=server.base_url) as client:
        yield client


def ended(changes: Iterator[RunChange], number: int) -> list[str]:
    """The ids of the next so many runs that have completed."""
    done = (each.run_id for each in changes if each.run is not None and each.run.status == "completed")
    return list(islice(done, number))


def execute(client: Client) -> str:
    found: str = client.flow("acme/demo/brief").execute().execution_id
    return found


def test_what_changes_behind_a_page_comes_in_order_and_a_number_resumes(client: Client) -> None:
    after = client.runs().last_change
    client.flow("acme/demo/other").execute()
    ids = [execute(client) for _ in range(3)]
    with closing(client.live_runs(query="flow:brief", after=after)) as changes:
        first = next(changes)
        assert (first.run_id, first.run is not None) == (ids[0], True)
        assert ended(changes, 2) == ids[1:]
    with closing(client.live_runs(after=first.number)) as changes:
        assert ended(changes, 2) == ids[1:]


def test_a_stream_that_is_cut_off_again_and_again_loses_nothing_and_repeats_nothing(
    server: RunningServer, client: Client
) -> None:
    after = client.runs().last_change
    ids = [execute(client) for _ in range(12)]
    with (
        cutting_proxy(server.address, seed=7) as (address, _),
        Client(server.key, base_url=address) as cut,
        closing(cut.live_runs(after=after)) as changes,
    ):
        assert ended(changes, 12) == ids
