"""What every store must do with the outlines of large runs that have ended, and the task that keeps them."""

import asyncio
import logging

import pytest

from runglass.errors import RunglassError, RunPurged, RunUnreadable, StoreError
from runglass.server.services.outlines import INTERVAL_S, Outlines, keep_outlines
from runglass.store.base import Store
from runglass.store.records import LARGE_RUN_EVENTS, RunRecord
from tests.conformance.stores import batch, make_run, purge_all
from tests.conformance.test_imports import import_run
from tests.conformance.test_removal import ended_run
from tests.fakes import VirtualClock
from tests.faulty_store import FaultyStore
from tests.records import there


async def large_run(store: Store, run_id: str) -> RunRecord:
    return await ended_run(store, run_id, events=LARGE_RUN_EVENTS - 1, size=1)


async def due(store: Store) -> str | None:
    found = await store.due_outline()
    return None if found is None else found.id


async def bytes_of(store: Store, run_id: str) -> tuple[int, int]:
    """Those that are counted of the run, and of its project."""
    project = await store.ensure_project("acme", "demo")
    return there(await store.run(run_id)).log_bytes, project.data_bytes


async def test_the_outline_of_a_large_run_is_due_from_its_end_until_all_of_it_is_kept(store: Store) -> None:
    await ended_run(store, "small", events=LARGE_RUN_EVENTS - 2, size=1)
    going = await make_run(store, "going")
    await store.append(batch(going, 0, *[b"e"] * LARGE_RUN_EVENTS))
    assert await due(store) is None
    run = await large_run(store, "large")
    await store.keep_outline(run.no, 1, b"one")
    await store.keep_outline(run.no, 2, b"two")
    assert (await due(store), await store.kept_outline(run.no)) == ("large", [])
    await store.keep_outline(run.no, 0, b"head")
    assert (await due(store), await store.kept_outline(run.no)) == (None, [b"head", b"one", b"two"])
    assert await store.kept_outline(going.no) == []


async def test_the_newest_outline_is_due_first_and_one_that_is_passed_over_no_more(store: Store) -> None:
    project = await store.ensure_project("acme", "demo")
    await import_run(store, project.id, id="imported", head=LARGE_RUN_EVENTS)
    await large_run(store, "older")
    await large_run(store, "newer")
    for run_id in ("newer", "older", "imported"):
        assert await due(store) == run_id
        await store.pass_over_outline(there(await store.run(run_id)).no)
    assert await due(store) is None


async def test_one_that_is_kept_is_due_once_more_where_it_is_to_be_renewed(store: Store) -> None:
    run = await large_run(store, "large")
    await store.keep_outline(run.no, 0, b"head")
    for _ in range(2):
        await store.renew_outline(run.no)
        assert await due(store) == "large"
    await store.keep_outline(run.no, 0, b"newer")
    assert (await due(store), await store.kept_outline(run.no)) == (None, [b"newer"])
    await store.renew_outline(run.no + 1)
    assert await due(store) is None


async def test_a_kept_outline_counts_as_bytes_of_its_run_once_and_goes_with_it(store: Store) -> None:
    run = await large_run(store, "large")
    of_run, of_project = await bytes_of(store, "large")
    for part, data in ((1, b"x" * 500), (1, b"x" * 100), (0, b"x" * 10)):
        await store.keep_outline(run.no, part, data)
    assert await bytes_of(store, "large") == (of_run + 110, of_project + 110)
    assert await store.purge_runs([run.no])
    assert await due(store) is None
    # Whoever makes it meanwhile writes nothing any more.
    await store.keep_outline(run.no, 0, b"head")
    await purge_all(store, limit_rows=100_000)
    assert await store.kept_outline(run.no) == []
    assert (await store.ensure_project("acme", "demo")).data_bytes == 0


TAKES_S = 7.0


class SlowOutlines(Outlines):
    """Outlines of which each takes its time."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self._store = store
        self._clock = clock

    async def keep(self, run: RunRecord) -> None:
        await self._clock.sleep(TAKES_S)
        await self._store.keep_outline(run.no, 0, b"head")


async def test_each_outline_that_is_due_is_kept_and_one_that_fails_keeps_none_from_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it fails with. The newest first, each with a rest as long behind it, and of a second at least.

    One that cannot be read is not tried again.
    """
    runs = {name: await large_run(store, name) for name in ("good", "unreadable", "purged", "unstored")}
    clock = VirtualClock()
    faults = FaultyStore(store)
    tried = faults.calls("keep_outline")
    failures: dict[str, RunglassError] = {
        "unreadable": RunUnreadable("unreadable", "no JSON"),
        "purged": RunPurged("it was deleted"),
        "unstored": StoreError("the disk is full"),
    }
    for name, failure in failures.items():
        faults.fail("keep_outline", failure, when=lambda no, *_, run=runs[name]: no == run.no, times=1)
    last_rest = FaultyStore(clock).hold("sleep", nth=14)
    with caplog.at_level(logging.WARNING):
        keeping = asyncio.create_task(keep_outlines(store, SlowOutlines(store, clock), clock))
        await last_rest.reached()
        keeping.cancel()
        await asyncio.wait({keeping})
    names = ("unstored", "unstored", "purged", "purged", "unreadable", "good")
    assert [call.args[0] for call in tried] == [runs[name].no for name in names]
    assert clock.slept_s == [TAKES_S] * 12 + [INTERVAL_S]
    kept = {name for name, run in runs.items() if await store.kept_outline(run.no)}
    assert kept == {"good", "purged", "unstored"}
    assert "what is stored of run 'unreadable' cannot be read" in caplog.text
    assert "it was deleted" not in caplog.text
