"""After a failover the process that had a run before it can write nothing more into it.

That a claim which was lost and the one which is made anew have different fences is all that keeps it out.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runglass.errors import WrongExpectedVersion
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import Checkpoint, RunRecord
from tests.conformance.stores import batch, make_run
from tests.postgres_server import connected
from tests.records import there

pytestmark = pytest.mark.slow

Taking = Callable[[PostgresStore, RunRecord, str], Awaitable[RunRecord | None]]
"""A way to get a run for an owner, and a new fence with it."""

UNTIL = "2999-01-01"


async def go_back(address: str, run: RunRecord) -> None:
    """From now on the store lacks what came after this state of the run, as a standby may."""
    async with connected(address) as database:
        await database.execute(
            f"UPDATE run SET status = '{run.status}', head = {run.head}, fence = {run.fence}, owner = NULL,"
            f" resume_head = {run.resume_head}, batch = NULL WHERE no = {run.no};"
            f" INSERT INTO queue (run_no, project_id) VALUES ({run.no}, {run.project_id})"
            " ON CONFLICT DO NOTHING"
        )


def claimed(**how: Any) -> Taking:
    async def take(store: PostgresStore, run: RunRecord, owner: str) -> RunRecord | None:
        (run,) = await store.claim_runs(owner, now="2026-01-01", limit=1, **how)
        return run

    return take


OF_WAITING: dict[str, Taking] = {
    "claimed": claimed(),
    "claimed of a project": claimed(project_id=1),
    "claimed with room": claimed(most_each=5),
}
OF_PAUSED: dict[str, Taking] = {
    "resumed": lambda store, run, owner: store.resume_run(run, Checkpoint("", "", b"{}"), owner=owner),
    "taken to be ended": lambda store, run, _: store.claim_waiting(run),
}


@pytest.mark.parametrize("way", [*OF_WAITING, *OF_PAUSED])
async def test_a_fence_from_before_a_failover_is_good_for_nothing(
    store: PostgresStore, address: str, way: str
) -> None:
    take = (OF_WAITING | OF_PAUSED)[way]
    for owner in ("before", "after"):
        await store.hold_lease(owner, until=UNTIL, renew=False)
    run = await make_run(store)
    if way in OF_PAUSED:
        await store.append(batch(run, 0, b"1", status="paused"))
    else:
        await go_back(address, run)
    kept = there(await store.run(run.id))
    before = there(await take(store, kept, "before"))
    await go_back(address, kept)
    after = there(await take(store, kept, "after"))
    # The log is where the process from before believes it to be: nothing but its fence is wrong.
    assert before.head == after.head
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(before, before.head, b"old"))
    await store.append(batch(after, after.head, b"new"))
