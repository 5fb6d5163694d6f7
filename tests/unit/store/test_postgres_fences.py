"""After a failover the process that had a run before it can write nothing more into it.

That a claim which was lost and the one which is made anew have different fences is all that keeps it out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runglass.errors import WrongExpectedVersion
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import Checkpoint, RunRecord
from tests.conformance.stores import batch, make_run
from tests.postgres_server import PostgresServer, postgres_server

pytestmark = pytest.mark.slow

Taking = Callable[[PostgresStore, RunRecord, str], Awaitable[RunRecord | None]]
"""A way to get a run for an owner, and a new fence with it."""

UNTIL = "2999-01-01"


class Failover:
    """A store, and the statements that take the row of a run back to what a standby has of it."""

    def __init__(self, store: PostgresStore, server: PostgresServer, database: str) -> None:
        self.store = store
        self._server = server
        self._database = database

    async def go_back(self, run: RunRecord) -> None:
        """From now on the store lacks what came after this state of the run."""
        await self._server.execute(
            f"UPDATE run SET status = '{run.status}', head = {run.head}, fence = {run.fence}, owner = NULL,"
            f" resume_head = {run.resume_head}, batch = NULL WHERE no = {run.no}",
            f"INSERT INTO queue (run_no, project_id) VALUES ({run.no}, {run.project_id})"
            " ON CONFLICT DO NOTHING",
            database=self._database,
        )


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Failover]:
    """A store on a new database."""
    server = await asyncio.to_thread(postgres_server)
    address = await server.database_of(folder)
    database = address.partition("?")[0].rpartition("/")[2]
    async with PostgresStore(address) as store:
        for owner in ("before", "after"):
            await store.hold_lease(owner, until=UNTIL, renew=False)
        yield Failover(store, server, database)


async def claimed(store: PostgresStore, run: RunRecord, owner: str) -> RunRecord | None:
    (run,) = await store.claim_runs(owner, now="2026-01-01", limit=1)
    return run


async def claimed_of_project(store: PostgresStore, run: RunRecord, owner: str) -> RunRecord | None:
    (run,) = await store.claim_runs(owner, now="2026-01-01", limit=1, project_id=run.project_id)
    return run


async def claimed_with_room(store: PostgresStore, run: RunRecord, owner: str) -> RunRecord | None:
    (run,) = await store.claim_runs(owner, now="2026-01-01", limit=1, most_each=5)
    return run


async def resumed(store: PostgresStore, run: RunRecord, owner: str) -> RunRecord | None:
    return await store.resume_run(run, Checkpoint("", "", b"{}"), owner=owner)


async def taken_to_be_ended(store: PostgresStore, run: RunRecord, owner: str) -> RunRecord | None:
    return await store.claim_waiting(run)


WAYS: dict[str, Taking] = {
    each.__name__: each
    for each in (claimed, claimed_of_project, claimed_with_room, resumed, taken_to_be_ended)
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_fence_from_before_a_failover_is_good_for_nothing(tmp_path: Path, way: str) -> None:
    take = WAYS[way]
    async with opened(tmp_path) as failover:
        store = failover.store
        run = await make_run(store)
        if take in (resumed, taken_to_be_ended):
            await store.append(batch(run, 0, b"1", status="paused"))
        else:
            await failover.go_back(run)
        kept = await store.run(run.id)
        assert kept is not None
        before = await take(store, kept, "before")
        await failover.go_back(kept)
        after = await take(store, kept, "after")
        assert before is not None
        assert after is not None
        # The log is where the process from before believes it to be: nothing but its fence is wrong.
        assert before.head == after.head
        with pytest.raises(WrongExpectedVersion):
            await store.append(batch(before, before.head, b"old"))
        await store.append(batch(after, after.head, b"new"))
