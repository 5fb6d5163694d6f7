"""The task that keeps outlines: one after the other, whatever one of them fails with."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from runglass.errors import RunglassError, RunPurged, RunUnreadable, StoreError
from runglass.server.services.kept_outlines import OutlineKeeper
from runglass.server.services.outlines import Outlines
from runglass.store.records import RunRecord
from runglass.store.sqlite.store import SqliteStore
from tests.conformance.test_kept_outlines import due, ended_run
from tests.fakes import VirtualClock

TAKES_S = 7.0


class SlowOutlines(Outlines):
    """Outlines of which each takes its time, and then fails in the way that is given for its run."""

    def __init__(self, store: SqliteStore, clock: VirtualClock, **failures: RunglassError) -> None:
        self.tried: list[str] = []
        self._store = store
        self._clock = clock
        self._failures = failures

    async def keep(self, run: RunRecord) -> None:
        self.tried.append(run.id)
        await self._clock.sleep(TAKES_S)
        if failure := self._failures.pop(run.id, None):
            raise failure
        await self._store.keep_outline(run.no, 0, b"head")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "runglass.db", synchronous="NORMAL") as opened:
        yield opened


class LastRest(VirtualClock):
    """Ends whoever rests once nothing is due any more."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__()
        self._store = store

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if await due(self._store) is None:
            raise asyncio.CancelledError


async def keep_all(store: SqliteStore, **failures: RunglassError) -> tuple[list[str], list[float]]:
    """Lets the task go on until nothing is due: the runs that it tried, and how long it then rested."""
    clock = LastRest(store)
    outlines = SlowOutlines(store, clock, **failures)
    with suppress(asyncio.CancelledError):
        await OutlineKeeper(store, outlines, clock).run_forever()
    return outlines.tried, clock.slept_s


async def test_each_outline_that_is_due_is_kept_with_a_rest_as_long_behind_it(store: SqliteStore) -> None:
    await ended_run(store, "one")
    await ended_run(store, "two")
    assert await keep_all(store) == (["two", "one"], [TAKES_S] * 4)


async def test_a_run_that_cannot_be_read_is_passed_over_and_keeps_none_from_the_others(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    await ended_run(store, "good")
    bad = await ended_run(store, "bad")
    with caplog.at_level(logging.WARNING):
        tried, _ = await keep_all(store, bad=RunUnreadable("bad", "no JSON"))
    assert tried == ["bad", "good"]
    assert await store.kept_outline(bad.no) == []
    assert "what is stored of run 'bad' cannot be read" in caplog.text


@pytest.mark.parametrize("failure", [StoreError("the disk is full"), RunPurged("it was deleted")])
async def test_one_that_failed_for_another_reason_is_tried_again(
    store: SqliteStore, failure: RunglassError
) -> None:
    run = await ended_run(store, "run")
    tried, _ = await keep_all(store, run=failure)
    assert tried == ["run", "run"]
    assert await store.kept_outline(run.no) == [b"head"]
