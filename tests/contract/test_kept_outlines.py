"""The outline of a large run is kept once it has ended: who opens the run later does not wait for it."""

from collections.abc import Iterator

import msgspec
import pytest

from runglass.outlines.kept_outline import PACKED_VERSION, PackedOutline
from runglass.outlines.outline import Outline
from runglass.runtime.runtime import FixedLimits
from runglass.server.services.outlines import Outlines
from runglass.store.records import LARGE_RUN_EVENTS, RunRecord
from runglass.testing import RunningServer, running_server
from tests.contract.wire import (
    execute,
    http_for,
)
from tests.faulty_store import FaultyStore
from tests.waiting import eventually

LOOP = """
slug: long
steps:
  - id: each
    type: loop
    over: items
    max_concurrency: 8
    steps:
      - {id: work, type: passthrough}
"""
RENAMED = LOOP.replace("id: work", "id: labour")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    # Runs of some size already count as ones whose outline takes long.
    with running_server(FixedLimits(long_run_events=LARGE_RUN_EVENTS)) as running:
        running.push(LOOP, publish=False)
        yield running


@pytest.fixture(scope="module")
def run(server: RunningServer) -> RunRecord:
    """A large run, once its outline is kept."""
    with http_for(server, server.key) as http:
        run_id = execute(http, "long", parameters={"items": list(range(LARGE_RUN_EVENTS // 2))})
    found = server.call(server.runtime.store.run(run_id))
    assert found is not None
    eventually(lambda: server.call(server.runtime.store.kept_outline(found.no)))
    return found


def opened(server: RunningServer, run: RunRecord) -> Outline:
    """The outline as a server has it that was just started."""

    async def of() -> Outline:
        return await Outlines(server.runtime).of(run)

    return server.call(of())


def text(outline: Outline) -> bytes:
    return b"".join(outline.json_parts(0, outline.row_count))


def test_a_kept_outline_has_the_rows_of_one_that_is_made(server: RunningServer, run: RunRecord) -> None:
    kept = opened(server, run)
    assert isinstance(kept, PackedOutline)
    assert kept.row_count == LARGE_RUN_EVENTS + 1
    # Of a run that goes on nothing is kept.
    made = opened(server, msgspec.structs.replace(run, status="running"))
    assert not isinstance(made, PackedOutline)
    assert text(kept) == text(made)


def test_one_that_is_of_another_tree_is_made_anew(server: RunningServer, run: RunRecord) -> None:
    server.push(RENAMED, publish=False)
    assert not isinstance(opened(server, run), PackedOutline)
    server.push(LOOP, publish=False)
    assert isinstance(opened(server, run), PackedOutline)


def test_one_that_cannot_be_read_is_made_anew_and_one_of_an_older_program_is_kept_anew(
    server: RunningServer, run: RunRecord
) -> None:
    store = server.runtime.store
    head, *_ = server.call(store.kept_outline(run.no))
    older = head.replace(b'"version":%d' % PACKED_VERSION, b'"version":%d' % (PACKED_VERSION - 1))
    for unusable in (b"{", older):
        server.call(store.keep_outline(run.no, 0, unusable))
        assert not isinstance(opened(server, run), PackedOutline)
    eventually(lambda: server.call(store.kept_outline(run.no))[0] != older)
    assert isinstance(opened(server, run), PackedOutline)


def test_the_ends_come_to_who_asks_for_them_and_say_so(server: RunningServer, faults: FaultyStore) -> None:
    faults.answer("due_outline", None)
    with http_for(server, server.key) as http:
        unkept = execute(http, "long", parameters={"items": list(range(LARGE_RUN_EVENTS // 2))})
        path = f"/flow-runs/{unkept}/trace/outline"
        first = http.get(path, params={"partial": True, "limit": 5}).json()
        whole = http.get(path, params={"limit": 5}).json()
        again = http.get(path, params={"partial": True, "limit": 5}).json()
    assert (first["partial"], whole["partial"], again["partial"]) == (True, False, False)
    assert first["rowCount"] < whole["rowCount"] == LARGE_RUN_EVENTS + 1
    assert first["columns"]["index"] == whole["columns"]["index"]
