"""A PostgreSQL that has lost its newest commits: what it knows of runs, and who may still write into them.

That a claim which was lost and the one which is made anew have different fences is all that keeps the process
from before out.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from runglass.errors import WrongExpectedVersion
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import Checkpoint, RunRecord
from runglass.wire.admin_api import Actor
from tests.conformance.stores import batch, make_run, run_with
from tests.postgres_replication import own_server
from tests.records import there

pytestmark = pytest.mark.slow


async def start_anew(session: asyncpg.Connection) -> None:
    """From now on the start of the server is one that nobody has noticed yet; then somebody does."""
    await session.execute("UPDATE run_setback SET started_at = started_at - interval '1 day'")
    await session.execute("DELETE FROM database_start")
    await session.execute("SELECT note_start()")


async def actions(store: PostgresStore, project_id: int) -> list[tuple[str, str, dict[str, object]]]:
    entries = await store.audit(project_id, limit=10)
    return [(e.action, e.subject, e.details) for e in entries if e.action.startswith("run.")]


async def known(store: PostgresStore, run: RunRecord) -> list[tuple[int | None, int | None]]:
    """What the run had at each start, and what a process says to have been told that it had before."""
    return [(each.head, each.had) for each in await store.setbacks(run.id)]


async def test_a_start_notes_what_runs_have_then_and_a_loss_is_kept_and_said_with_all_that_is_known_of_it(
    store: PostgresStore, session: asyncpg.Connection
) -> None:
    run = await run_with(store, b"1", b"2")
    ended = await run_with(store, b"1", run_id="ended", status="completed")
    await start_anew(session)
    assert (await known(store, run), await known(store, ended)) == ([(2, None)], [])
    await store.append(batch(run, 2, b"3"))
    await start_anew(session)
    assert await known(store, run) == [(3, None)], "what says nothing of a loss goes with the next start"
    # Others have gone on with it before the process that knows more came to say so.
    await store.append(batch(run, 3, b"4", b"5", b"6"))
    for had in (5, 7, 4):
        await store.note_setback(run.id, run.project_id, had=had)
    await start_anew(session)
    assert await known(store, run) == [(6, None), (3, 7)]
    assert await actions(store, run.project_id) == [
        ("run.set_back", run.id, {"before": {"events": had}, "after": {"events": 3}}) for had in (7, 5)
    ]
    await store.note_setback(ended.id, ended.project_id, had=1)
    assert await known(store, ended) == [(0, 1)], "that of a run that had ended went back at least by one"


async def test_a_run_that_is_gone_is_lost_and_one_that_was_purged_is_not(
    store: PostgresStore, session: asyncpg.Connection
) -> None:
    lost = await run_with(store, b"1", b"2", run_id="lost")
    purged = await run_with(store, b"1", run_id="purged", status="completed")
    assert await store.purge_runs([purged.no], by=Actor(kind="cli", name="ann"))
    await session.execute(f"DELETE FROM run WHERE no = {lost.no}")
    await start_anew(session)
    await store.note_setback(purged.id, purged.project_id, had=1)
    assert await known(store, purged) == []
    await store.note_setback(lost.id, lost.project_id, had=2)
    await store.note_setback(lost.id, lost.project_id, had=2)
    assert await known(store, lost) == [(None, 2)]
    said, _ = await actions(store, lost.project_id)
    assert said == ("run.lost", lost.id, {"before": {"events": 2}})


async def test_a_crash_after_which_the_server_goes_on_by_itself_is_a_start(address: str) -> None:
    with own_server() as server:
        server.start()
        async with PostgresStore(server.address(urlsplit(address).path[1:])) as store:
            run = await run_with(store, b"1", b"2")
            started = server.execute("SELECT pg_postmaster_start_time()")
            server.crash_in_place()
            later = await make_run(store, "later")
            assert started == server.execute("SELECT pg_postmaster_start_time()")
            assert store.generation == 1
            assert later.no >= run.no + 1_000_000, "no lost run shares its number with a new one"
            assert await known(store, run) == [(2, None)]


Taking = Callable[[PostgresStore, RunRecord, str], Awaitable[RunRecord | None]]
"""A way to get a run for an owner, and a new fence with it."""


async def go_back(session: asyncpg.Connection, run: RunRecord) -> None:
    """From now on the store lacks what came after this state of the run, as a standby may."""
    await session.execute(
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
    store: PostgresStore, session: asyncpg.Connection, way: str
) -> None:
    take = (OF_WAITING | OF_PAUSED)[way]
    for owner in ("before", "after"):
        await store.hold_lease(owner, until="2999-01-01", renew=False)
    run = await make_run(store)
    if way in OF_PAUSED:
        await store.append(batch(run, 0, b"1", status="paused"))
    else:
        await go_back(session, run)
    kept = there(await store.run(run.id))
    before = there(await take(store, kept, "before"))
    await go_back(session, kept)
    after = there(await take(store, kept, "after"))
    # The log is where the process from before believes it to be: nothing but its fence is wrong.
    assert before.head == after.head
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(before, before.head, b"old"))
    await store.append(batch(after, after.head, b"new"))
