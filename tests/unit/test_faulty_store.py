"""The double that fails in the place of a store: each line of its script is for the calls that it names."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runglass.errors import StoreError
from runglass.store.sqlite.store import SqliteStore
from tests.conformance.stores import batch, make_run
from tests.faulty_store import FaultyStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as opened:
        yield opened


@pytest.mark.parametrize("commits", [True, False])
async def test_after_its_death_a_process_stores_nothing(store: SqliteStore, commits: bool) -> None:
    run = await make_run(store)
    faults = FaultyStore(store)
    faults.die(at_append=2, commits=commits)
    await store.append(batch(run, 0, b"1"))
    assert not faults.has_died
    for head in (1, 1 + commits):
        with pytest.raises(StoreError, match="has died"):
            await store.append(batch(run, head, b"2"))
        assert faults.has_died
    assert len(await store.events(run.no, after=0, limit_bytes=100)) == 1 + commits
    with pytest.raises(StoreError, match="has died"):
        await store.end_lease("its own")
