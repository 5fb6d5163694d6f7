"""The stores that must all do the same, and the runs that tests make in them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from runglass.store.base import Store
from runglass.store.records import Append, IdempotencyKey, RunRecord, StepRow
from runglass.store.sqlite.store import SqliteStore
from tests.postgres_pooler import pgbouncer_path, pooler
from tests.postgres_server import DEBIAN, folder_store
from tests.records import new_run, there

STORES: dict[str, Callable[..., Any]] = {
    "sqlite": lambda folder, **more: SqliteStore(folder / "runglass.db", synchronous="NORMAL", **more),
    "postgres": folder_store,
    **{f"postgres-{version}": partial(folder_store, version=version) for version in sorted(DEBIAN)},
}
"""A file, PostgreSQL of the wheel, and each version of Debian's that is on this machine."""
POOLED: dict[str, Callable[..., Any]] = {
    "pooler": lambda folder, **more: folder_store(
        folder, way=lambda address: pooler().address(address), **more
    )
}
"""PostgreSQL by way of a pooler, where there is one."""
ALL_STORES = STORES | (POOLED if pgbouncer_path() else {})


def store_kinds(*without: str) -> list[Any]:
    """The names of the stores as parameters of tests; those that need a server are slow."""
    return [
        kind if kind == "sqlite" else pytest.param(kind, marks=pytest.mark.slow)
        for kind in ALL_STORES
        if kind not in without
    ]


CALL = IdempotencyKey("key", b"digest")


async def whole_trace(store: Store, run_id: str) -> tuple[bytes, list[bytes]]:
    """The summary and the latest attempt of each step: events of these tests have no content to read."""
    record = there(await store.run(run_id))
    found = there(await store.trace(run_id, project_id=record.project_id, limit_bytes=1 << 20))
    return found.run.summary, [data for _, data in found.steps]


async def make_run(
    store: Store, run_id: str = "run-1", *, project: str = "demo", slug: str = "flow", **fields: Any
) -> RunRecord:
    owner = await store.ensure_project("acme", project)
    flow = await store.put_draft(owner.id, slug, name=None, capture=None, source=b"{}")
    about = {"request": b'{"inputs":{}}', "summary": b'{"status":"pending"}', **fields}
    return await store.create_run(new_run(owner.id, flow.id, id=run_id, **about))


def batch(run: RunRecord, head: int, *events: bytes, status: str = "running", **more: Any) -> Append:
    about = {"summary": b'{"status":"%s"}' % status.encode(), **more}
    return Append(run_no=run.no, head=head, fence=run.fence, events=events, status=status, **about)


async def run_with(store: Store, *events: bytes, run_id: str = "run-1", **more: Any) -> RunRecord:
    """A run that has these events; there is `more` of their append."""
    run = await make_run(store, run_id)
    await store.append(batch(run, 0, *events, **more))
    return there(await store.run(run_id))


def row(position: int, *, attempt: int = 1, status: str = "running") -> StepRow:
    return StepRow(position, "s", "", attempt, status, b"%d.%d %s" % (position, attempt, status.encode()))


async def purge_all(store: Store, **limits: int) -> int:
    """Takes every bite; returns how many there were."""
    bites = 0
    for run_no in await store.purged_runs(limit=1000):
        bites += 1
        while not await store.purge_rows([run_no], **{"limit_rows": 1000, "limit_bytes": 1 << 20, **limits}):
            bites += 1
    assert await store.purged_runs(limit=1000) == []
    return bites
