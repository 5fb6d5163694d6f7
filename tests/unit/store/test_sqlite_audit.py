"""The audit log in the file: nobody changes it, and no change is without its entry."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from runglass.errors import KeyLimitReached, StoreError
from runglass.store.records import Append, Retention
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.admin_api import SERVER, Actor
from tests.records import new_run

JANE = Actor(kind="cli", name="jane")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "runglass.db", synchronous="NORMAL") as opened:
        yield opened


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET name = 'nobody'",
        "UPDATE OR REPLACE audit SET no = 2 WHERE no = 1",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE no = 1",
        "INSERT OR REPLACE INTO audit SELECT no, '', 9, '', '', 9, '', '', '', '', x'7b7d' FROM audit",
        "REPLACE INTO audit SELECT * FROM audit",
    ],
)
async def test_the_database_itself_refuses_changes_of_entries(store: SqliteStore, sql: str) -> None:
    project = await store.ensure_project("acme", "demo", by=JANE)
    await store.set_capture(project.id, "full", by=JANE)
    before = await store.audit(None, limit=10)
    with (
        closing(sqlite3.connect(store.connections.path, isolation_level=None)) as database,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        database.execute(sql)
    assert await store.audit(None, limit=10) == before
    assert len(before) == 2


async def test_changes_of_settings_have_before_and_after(store: SqliteStore) -> None:
    project = await store.ensure_project("acme", "demo")
    await store.ensure_project("acme", "demo", by=JANE)
    for _ in range(2):
        await store.set_capture(project.id, "metadata_only", "redacted", 0.05, by=JANE)
        await store.set_budget(project.id, Decimal("5.25"), by=JANE)
        await store.set_retention(project.id, Retention(30, None), by=JANE)
    await store.set_budget(project.id, None, by=JANE)
    told = await store.audit(project.id, limit=10)
    assert [(entry.action, entry.actor, entry.details) for entry in reversed(told)] == [
        ("project.created", SERVER, {}),
        (
            "project.capture",
            JANE,
            {
                "before": {"capture": None, "captureFailed": None, "captureSample": None},
                "after": {"capture": "metadata_only", "captureFailed": "redacted", "captureSample": 0.05},
            },
        ),
        ("project.budget", JANE, {"before": {"budgetUsd": None}, "after": {"budgetUsd": "5.25"}}),
        (
            "project.retention",
            JANE,
            {
                "before": {"retentionDays": None, "contentRetentionDays": None},
                "after": {"retentionDays": 30, "contentRetentionDays": None},
            },
        ),
        ("project.budget", JANE, {"before": {"budgetUsd": "5.25"}, "after": {"budgetUsd": None}}),
    ]
    assert {entry.subject for entry in told} == {"acme/demo"}


async def test_a_change_and_its_entry_are_one_transaction(store: SqliteStore) -> None:
    """Neither stands without the other, since they are one transaction."""
    project = await store.ensure_project("acme", "demo")
    key = await store.add_key(project.id, "run", b"digest", "nk_live_1")
    flow = await store.put_draft(project.id, "flow", name=None, capture=None, source=b"{}")
    run = await store.create_run(new_run(project.id, flow.id))
    await store.append(
        Append(run_no=run.no, head=0, fence=run.fence, events=[], status="failed", summary=b"{}")
    )
    with closing(sqlite3.connect(store.connections.path, isolation_level=None)) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    for change in (
        store.ensure_project("acme", "other"),
        store.set_capture(project.id, "full"),
        store.set_budget(project.id, Decimal(1)),
        store.set_retention(project.id, Retention(1, 1)),
        store.add_key(project.id, "run", b"other", "nk_live_2"),
        store.revoke_key(project.id, key.id),
        store.put_draft(project.id, "flow", name="other", capture=None, source=b"{}"),
        store.publish(flow.id),
        store.purge_runs([run.no], by=JANE),
    ):
        with pytest.raises(StoreError):
            await change
    assert await store.projects() == [project]
    assert await store.keys(project.id) == [key]
    assert await store.flow(flow.id) == flow
    assert [version.version for version in await store.versions(flow.id)] == [0]
    assert await store.run(run.id) is not None


async def test_removal_by_retention_is_not_in_the_audit_log(store: SqliteStore) -> None:
    project = await store.ensure_project("acme", "demo")
    flow = await store.put_draft(project.id, "flow", name=None, capture=None, source=b"{}")
    for run_id, by in (("one", None), ("two", JANE)):
        run = await store.create_run(new_run(project.id, flow.id, id=run_id))
        ended = Append(run_no=run.no, head=0, fence=run.fence, events=[], status="failed", summary=b"{}")
        await store.append(ended)
        assert await store.purge_runs([run.no], by=by)
        while not await store.purge_rows([run.no], limit_rows=10, limit_bytes=1000):
            pass
    told = await store.audit(project.id, action="run.purged", limit=10)
    assert [(entry.subject, entry.actor) for entry in told] == [("two", JANE)]


async def test_revoked_keys_make_room_for_others(store: SqliteStore) -> None:
    project = await store.ensure_project("acme", "demo")
    other = await store.ensure_project("acme", "other")
    first = await store.add_key(project.id, "run", b"1", "nk_live_1", most=2)
    second = await store.add_key(project.id, "run", b"2", "nk_live_2", most=2)
    with pytest.raises(KeyLimitReached, match="max_keys_per_project"):
        await store.add_key(project.id, "run", b"3", "nk_live_3", most=2)
    await store.add_key(other.id, "run", b"4", "nk_live_4", most=2)
    assert await store.live_keys([first.id, second.id, 99]) == {first.id, second.id}
    await store.revoke_key(project.id, first.id)
    assert await store.live_keys([first.id, second.id]) == {second.id}
    await store.add_key(project.id, "run", b"3", "nk_live_3", most=2)
