"""The task that keeps outlines: one after the other, whatever one of them fails with."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from runglass.errors import RunglassError, RunPurged, RunUnreadable, StoreError
from runglass.server.services.outlines import Outlines, keep_outlines
from runglass.store.records import RunRecord
from runglass.store.sqlite.store import SqliteStore
from tests.conformance.test_kept_outlines import due, large_run
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


async def test_each_outline_that_is_due_is_kept_and_one_that_fails_keeps_none_from_the_others(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest first, each with a rest as long behind it; one that cannot be read is not tried again."""
    runs = {name: await large_run(store, name) for name in ("good", "unreadable", "purged", "unstored")}
    failures: dict[str, RunglassError] = {
        "unreadable": RunUnreadable("unreadable", "no JSON"),
        "purged": RunPurged("it was deleted"),
        "unstored": StoreError("the disk is full"),
    }
    clock = LastRest(store)
    outlines = SlowOutlines(store, clock, **failures)
    with suppress(asyncio.CancelledError), caplog.at_level(logging.WARNING):
        await keep_outlines(store, outlines, clock)
    assert outlines.tried == ["unstored", "unstored", "purged", "purged", "unreadable", "good"]
    assert clock.slept_s == [TAKES_S] * 12
    kept = {name for name, run in runs.items() if await store.kept_outline(run.no)}
    assert kept == {"good", "purged", "unstored"}
    assert "what is stored of run 'unreadable' cannot be read" in caplog.text
