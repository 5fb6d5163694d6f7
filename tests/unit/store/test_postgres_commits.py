"""Answers that are lost: no commit is made again, and none that was not made is taken for one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID

import pytest

from runglass.errors import (
    CommitUncertain,
    DuplicateIdempotencyKey,
    StoreError,
    StoreUnreachable,
    WrongExpectedVersion,
)
from runglass.store.base import Store
from runglass.store.postgres.connections import CONNECTIONS
from runglass.store.postgres.store import PostgresStore
from runglass.store.records import Checkpoint, IdempotencyKey, Retention, RunRecord
from runglass.wire.admin_api import SERVER
from tests.conformance.stores import CALL, batch, make_run, row, run_with
from tests.conformance.test_imports import EVENTS, imported
from tests.conformance.test_recordings import record
from tests.postgres_proxy import COMMIT, CuttingProxy, cutting_proxy
from tests.postgres_server import connected, postgres_server
from tests.records import new_run

pytestmark = pytest.mark.slow

PATIENCE_S = 5.0


class Known(NamedTuple):
    """What there is before the call that is tried."""

    run: RunRecord
    ended: RunRecord
    paused: RunRecord
    key: int
    importing: int
    recorded: RunRecord


async def prepared(store: Store) -> Known:
    run = await make_run(store, "run-0", call=CALL)
    await store.publish(run.flow_id)
    await store.put_draft(run.project_id, "flow", name="two", capture=None, source=b"2")
    key = await store.add_key(run.project_id, "read", b"digest", "nk_")
    await store.hold_lease("me", until="2027-01-01", renew=False)
    large = [Checkpoint("s", "", b"x" * 2_000_000)]
    ended = await run_with(store, b"{}", run_id="run-1", checkpoints=large, open_bytes=2_000_000)
    await store.append(batch(ended, 1, b"{}", status="completed", result=b'"r"', ended_at="2026"))
    paused = await run_with(store, b"{}", run_id="run-2", status="paused")
    importing = await store.begin_import(run.project_id, "from-afar")
    recorded = await record(store, "recorded", trigger="plain")
    return Known(run, ended, paused, key.id, importing, recorded)


Call = Callable[[Store, Known], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "abandon_imports": lambda store, known: store.abandon_imports(),
    "add_key": lambda store, known: store.add_key(known.run.project_id, "run", b"other", "nk_"),
    "answer_call": lambda store, known: store.answer_call(
        known.run.project_id, "key", status=200, answer=b"answer"
    ),
    "append": lambda store, known: store.append(
        batch(known.run, 0, b"1", steps=[row(1)], spent_usd=Decimal(3), log_bytes=7)
    ),
    "begin_import": lambda store, known: store.begin_import(known.run.project_id, "another"),
    "check_write": lambda store, known: store.check_write(),
    "claim_maintenance": lambda store, known: store.claim_maintenance("removal", for_s=60),
    "claim_runs": lambda store, known: store.claim_runs("me", now="2026-01-01", limit=5),
    "claim_waiting": lambda store, known: store.claim_waiting(known.paused),
    "create_recording": lambda store, known: record(store, "new", trace_id="1" * 32),
    "create_run": lambda store, known: store.create_run(
        new_run(known.run.project_id, known.run.flow_id, id="new", call=IdempotencyKey("new", b"d"))
    ),
    "defer_recording": lambda store, known: store.defer_recording(known.recorded.no, due_at="2027"),
    "drop_checkpoints": lambda store, known: store.drop_checkpoints(limit_rows=9, limit_bytes=1),
    "due_recordings": lambda store, known: store.due_recordings(now="2027", limit=9),
    "end_lease": lambda store, known: store.end_lease("me"),
    "ensure_project": lambda store, known: store.ensure_project("acme", "new"),
    "expire_answers": lambda store, known: store.expire_answers(before="9999", limit=9),
    "finish_import": lambda store, known: store.finish_import(
        imported(known.importing, known.run.project_id), by=SERVER
    ),
    "forget_calls": lambda store, known: store.forget_calls(before="9999"),
    "hold_budget": lambda store, known: store.hold_budget(UUID(int=1), known.run, Decimal(1)),
    "hold_lease": lambda store, known: store.hold_lease("other", until="2028-01-01", renew=False),
    "import_rows": lambda store, known: store.import_rows(known.importing, EVENTS, [row(1)]),
    "keep_outline": lambda store, known: store.keep_outline(known.ended.no, 0, b"outline"),
    "pass_over_outline": lambda store, known: store.pass_over_outline(known.ended.no),
    "publish": lambda store, known: store.publish(known.run.flow_id),
    "purge_runs": lambda store, known: store.purge_runs([known.ended.no], by=SERVER),
    "put_draft": lambda store, known: store.put_draft(
        known.run.project_id, "flow", name="three", capture=None, source=b"3"
    ),
    "recorded_flow": lambda store, known: store.recorded_flow(known.run.project_id, "new", most=9),
    "release_budget": lambda store, known: store.release_budget(UUID(int=1)),
    "release_run": lambda store, known: store.release_run(known.run.id, "me"),
    "renew_lease": lambda store, known: store.hold_lease("me", until="2029-01-01", renew=True),
    "request_cancel": lambda store, known: store.request_cancel(known.run.id, reason="why"),
    "resume_run": lambda store, known: store.resume_run(
        known.paused, Checkpoint("", "stretch", b"next"), owner=None, call=IdempotencyKey("new", b"d")
    ),
    "revoke_key": lambda store, known: store.revoke_key(known.run.project_id, known.key),
    "set_budget": lambda store, known: store.set_budget(known.run.project_id, Decimal(3)),
    "set_production": lambda store, known: store.set_production(known.run.flow_id, 1),
    "set_retention": lambda store, known: store.set_retention(known.run.project_id, Retention(3, None)),
    "set_weights": lambda store, known: store.set_weights({known.run.project_id: 2.0}),
    "show_recording": lambda store, known: store.show_recording(known.recorded.no),
    "strip_content": lambda store, known: store.strip_content(
        [known.ended.no], None, limit_rows=99, limit_bytes=1 << 20
    ),
}
STATEMENTS = {
    "append": "append_rows(",
    "create_recording": "create_recordings(",
    "create_run": "create_runs(",
    "release_budget": "DELETE FROM budget_hold",
}
"""Those that are one statement, and no transaction of several."""

UNLIKE = {
    *("id", "no", "run_no", "run_id", "flow_id", "batch"),
    *("fence", "slot", "project_id", "subject", "details"),
    *("at", "since", "expires_at", "held_until", "holder", "updated_at"),
    *("created_at", "revoked_at", "answered_at", "ended_at", "noticed_at", "plain_at"),
}
"""What differs each time: ids that are made up, numbers that are counted on, times and connections."""

undisturbed: dict[str, tuple[Any, dict[str, list[str]]]] = {}
"""What the calls return where nothing is cut, and what all tables have then."""


Proxied = tuple[CuttingProxy, PostgresStore, str]
"""A proxy, a store that is reached by way of it, and the address of its database without."""


@pytest.fixture
async def proxied(address: str) -> AsyncIterator[Proxied]:
    async with (
        cutting_proxy(address) as (proxy, by_way_of_it),
        PostgresStore(by_way_of_it, patience_s=PATIENCE_S) as store,
    ):
        yield proxy, store, address


async def rows_of_all(address: str) -> dict[str, list[str]]:
    """What every table has, but for what is unlike."""
    async with connected(address) as connection:
        names = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = current_schema()::regnamespace AND relname <> ALL ($1)",
            ["commit_mark", "schema_migration"],
        )
        found = {}
        for (name,) in names:
            sql = f"SELECT * FROM {name}"
            if name == "project_total":
                # Which row is added to depends on the connection.
                sql = f"SELECT project_id, sum(data_bytes), sum(spent_usd) FROM ({sql}) AS t GROUP BY 1"
            rows = await connection.fetch(sql)
            found[name] = sorted(
                str([value for key, value in row.items() if key not in UNLIKE]) for row in rows
            )
    return found


@pytest.mark.parametrize(
    ("name", "when"),
    [
        *((name, "after") for name in CALLS),
        ("append", "before"),
        ("create_run", "before"),
        ("publish", "before"),
    ],
)
async def test_a_call_whose_commit_is_cut_off_does_what_it_does_otherwise_once(
    proxied: Proxied, tmp_path: Path, name: str, when: Literal["before", "after"]
) -> None:
    proxy, store, address = proxied
    known = await prepared(store)
    proxy.cut(STATEMENTS.get(name, COMMIT), when)
    result = await CALLS[name](store, known)
    assert proxy.cuts == 1
    cut_off = await rows_of_all(address)
    if name not in undisturbed:
        # The database of another folder takes the place of this one.
        await store.__aexit__()
        other = await postgres_server().database_of(tmp_path / "undisturbed")
        async with PostgresStore(other) as beside:
            expected = await CALLS[name](beside, await prepared(beside))
            undisturbed[name] = expected, await rows_of_all(other)
    expected, rows = undisturbed[name]
    assert cut_off == rows
    assert type(result) is type(expected)
    if isinstance(expected, bool):
        assert result is expected


async def test_an_append_or_a_second_run_under_a_key_is_refused_also_when_the_answer_was_lost(
    proxied: Proxied,
) -> None:
    proxy, store, _ = proxied
    run = await run_with(store, b"1")
    proxy.cut("append_rows(", "after")
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(run, 0, b"1"))
    assert proxy.cuts == 1
    new = new_run(run.project_id, run.flow_id, id="one", call=IdempotencyKey("key", b"d"))
    await store.create_run(new)
    proxy.cut("create_run(", "after")
    with pytest.raises(DuplicateIdempotencyKey):
        await store.create_run(new_run(run.project_id, run.flow_id, id="two", call=new.call))
    assert await store.run("two") is None


async def test_while_the_database_is_away_calls_wait_and_then_say_so(proxied: Proxied) -> None:
    proxy, store, _ = proxied
    run = await make_run(store)
    proxy.go_away()
    with pytest.raises(StoreError, match="cannot be used"):
        await store.run(run.id)
    with pytest.raises(StoreError) as refused:
        await store.append(batch(run, 0, b"1"))
    assert not isinstance(refused.value, CommitUncertain), "it was never sent"
    proxy.come_back()
    await store.append(batch(run, 0, b"1"))
    assert await store.events(run.no, after=0, limit_bytes=9) == [(1, b"1")]


async def test_new_connections_to_a_silent_host_are_given_up_and_none_is_missing_later(
    proxied: Proxied,
) -> None:
    proxy, store, address = proxied
    run = await make_run(store)
    # Those that are open would wait for an answer as long as a statement may take.
    async with connected(address) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await proxy.was_ended.wait()
    proxy.speaks.clear()
    calls = [store.run(run.id) for _ in range(CONNECTIONS)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, StoreUnreachable) for each in outcomes), outcomes
    proxy.speaks.set()
    again = await asyncio.gather(*(store.run(run.id) for _ in range(2 * CONNECTIONS)))
    assert all(found is not None for found in again)


async def test_a_commit_of_which_nothing_can_be_learned_is_uncertain(proxied: Proxied) -> None:
    proxy, store, _ = proxied
    run = await make_run(store)
    proxy.cut(COMMIT, "after", for_good=True)
    with pytest.raises(CommitUncertain):
        await store.set_budget(run.project_id, Decimal(1))
    proxy.come_back()
    proxy.cut("append_rows(", "after", for_good=True)
    with pytest.raises(CommitUncertain):
        await store.append(batch(run, 0, b"1"))
    proxy.come_back()
    assert await store.events(run.no, after=0, limit_bytes=9) == [(1, b"1")]
