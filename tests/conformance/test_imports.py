"""What every store must do with runs that are imported: nobody sees them before they are whole."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from runglass.errors import ImportConflict, StoreError
from runglass.store.base import Store
from runglass.store.imports import ImportedFlow, ImportedRun
from runglass.store.records import Retention, RunNumbers
from runglass.wire.admin_api import SERVER
from runglass.wire.query import Range, RunQuery, Term
from tests.conformance.stores import purge_all, row
from tests.records import there

RUN, FLOW = "run-from-afar", "flow-from-afar"
EVENTS = [(1, b"one"), (2, b"two"), (3, b"three")]
SOURCE = b'{"slug":"far"}'


def imported(no: int, project_id: int, **fields: Any) -> ImportedRun:
    anything: dict[str, Any] = {
        "id": RUN,
        "flow": ImportedFlow(FLOW, "far", SOURCE, name="Far", retention=Retention(7, None)),
        "version": 3,
        "status": "failed",
        "trigger_type": "job",
        "capture": "redacted",
        "session_id": "session",
        "head": len(EVENTS),
        "summary": b'{"id":"run-from-afar"}',
        "ended_at": "2026-01-01T00:00:00.000Z",
        "numbers": RunNumbers(7, 0.5, 11),
        "log_bytes": 1234,
    }
    return ImportedRun(no=no, project_id=project_id, **{**anything, **fields})


async def project_id_of(store: Store, name: str = "demo") -> int:
    return (await store.ensure_project("acme", name)).id


async def import_run(store: Store, project_id: int, **fields: Any) -> None:
    no = await store.begin_import(project_id, fields.get("id", RUN))
    await store.import_rows(no, EVENTS, [row(1), row(2)])
    await store.finish_import(imported(no, project_id, **fields), by=SERVER)


async def test_an_imported_run_is_read_as_any_other_once_it_is_whole(store: Store) -> None:
    project_id = await project_id_of(store)
    no = await store.begin_import(project_id, RUN)
    await store.import_rows(no, EVENTS[:2], [row(1), row(2)])
    await store.import_rows(no, EVENTS[2:], [row(1, attempt=2, status="completed")])
    assert await store.run(RUN) is None
    assert (await store.runs(project_id, RunQuery(), limit=10)).runs == []
    assert await store.flow(FLOW) is None
    assert there(await store.project(project_id)).data_bytes == 0
    summary = b'{"error":{"code":"X","message":"Sesame"}}'
    await store.finish_import(imported(no, project_id, summary=summary), by=SERVER)
    run = there(await store.run(RUN))
    assert (run.no, run.project_id, run.flow_id, run.version, run.head) == (no, project_id, FLOW, 3, 3)
    assert (run.status, run.trigger_type, run.capture, run.key_id) == ("failed", "job", "redacted", None)
    assert await store.events(no, after=0, limit_bytes=1000) == EVENTS
    assert [(step.position, step.attempt) for step in await store.steps(no)] == [(1, 2), (2, 1)]
    assert [step.attempt for step in await store.attempts_at(no, 1)] == [1, 2]
    terms = (
        Term("error", ("sesame",)),
        Term("status", ("failed",)),
        Term("flow", (FLOW,)),
        Term("trigger", ("job",)),
        Term("session", ("session",)),
        Term("version", ranges=(Range(3, 3),)),
    )
    for query in (RunQuery(), *(RunQuery((term,)) for term in terms)):
        listed = (await store.runs(project_id, query, limit=10)).runs
        assert [listing.id for listing in listed] == [RUN]
    assert [each.id for each in await store.session_runs(project_id, "session", after="", limit=9)] == [RUN]
    project = there(await store.project(project_id))
    assert (project.data_bytes, project.spent_usd) == (1234, Decimal(0)), "it costs nothing here"
    assert await store.purge_runs([no])
    assert there(await store.project(project_id)).data_bytes == 0


async def test_its_flow_is_made_as_a_draft_with_a_version_that_is_read_and_does_not_run(store: Store) -> None:
    project_id = await project_id_of(store)
    await import_run(store, project_id)
    (entry,) = await store.audit(project_id, action="run.imported", limit=10)
    assert (entry.subject, entry.actor) == (RUN, SERVER)
    details = {"flowId": FLOW, "version": 3, "status": "failed", "events": 3}
    assert entry.details == details | {"made": ["run", "flow", "draft", "version"]}
    flow = there(await store.find_flow(project_id, "far"))
    assert (flow.id, flow.name, flow.production_version, flow.retention_days) == (FLOW, "Far", None, 7)
    assert [(each.version, each.imported) for each in await store.versions(FLOW)] == [(0, False), (3, True)]
    assert await store.flow_source(FLOW, 0) == await store.flow_source(FLOW, 3) == SOURCE
    assert await store.runnable_source(FLOW, 0) == SOURCE
    assert await store.runnable_source(FLOW, 3) is None
    assert not await store.set_production(FLOW, 3)
    await import_run(store, project_id, id="another")
    (newest, _) = await store.audit(project_id, action="run.imported", limit=10)
    assert newest.details == details | {"made": ["run"]}
    newer = ImportedFlow(FLOW, "far", b'{"slug":"far","newer":1}')
    await import_run(store, project_id, id="third", flow=newer, version=4)
    assert await store.flow_source(FLOW, 4) == newer.source
    assert await store.flow_source(FLOW, 0) == SOURCE
    assert await store.flow(FLOW) == flow


async def test_publishing_counts_the_own_versions_and_passes_over_imported_ones(store: Store) -> None:
    project_id = await project_id_of(store)
    for number, version in enumerate((0, 2, 3, 2**31 - 1)):
        await import_run(store, project_id, id=f"{RUN}-{number}", version=version)
    published = []
    for text in (b"one", b"two", b"three"):
        await store.put_draft(project_id, "far", name=None, capture=None, source=text)
        published.append(await store.publish(FLOW))
    assert published == [1, 4, 5]
    assert await store.runnable_source(FLOW, 4) == b"two"
    await import_run(store, project_id, id="another", flow=ImportedFlow(FLOW, "far", b"one"), version=1)
    assert await store.runnable_source(FLOW, 1) == b"one", "it was published here"
    assert [each.version for each in await store.versions(FLOW) if not each.imported] == [0, 1, 4, 5]


async def test_a_run_that_is_there_is_not_imported_again(store: Store) -> None:
    project_id = await project_id_of(store)
    late = await store.begin_import(project_id, RUN)
    await import_run(store, project_id)
    for again in (
        store.begin_import(project_id, RUN),
        store.finish_import(imported(late, project_id), by=SERVER),
    ):
        with pytest.raises(ImportConflict, match="already") as refused:
            await again
        assert refused.value.code == "RUN_EXISTS"
    assert there(await store.run(RUN)).no != late


async def test_a_flow_that_is_another_one_here_is_refused_and_not_changed(store: Store) -> None:
    project_id, other_id = await project_id_of(store), await project_id_of(store, "other")
    own = await store.put_draft(project_id, "far", name=None, capture=None, source=b"own")
    with pytest.raises(
        ImportConflict, match=r"has a flow 'far' of its own.*import the file into another project"
    ) as refused:
        await import_run(store, project_id)
    assert refused.value.code == "FLOW_CONFLICT"
    mine = ImportedFlow(own.id, "far", SOURCE)
    with pytest.raises(ImportConflict, match="cannot be made in this project"):
        await import_run(store, other_id, flow=mine)
    await store.publish(own.id)
    with pytest.raises(ImportConflict, match="version 1 of flow 'far' is another one here"):
        await import_run(store, project_id, flow=mine, version=1)
    assert await store.run(RUN) is None
    assert await store.flow_source(own.id, 0) == await store.flow_source(own.id, 1) == b"own"
    assert await store.find_flow(other_id, "far") is None


async def test_an_import_that_is_given_up_cannot_go_on_and_leaves_nothing(store: Store) -> None:
    project_id = await project_id_of(store)
    no = await store.begin_import(project_id, RUN)
    await store.import_rows(no, EVENTS, [row(1), row(2)])
    await store.abandon_imports(no)
    with pytest.raises(StoreError, match="given up"):
        await store.import_rows(no, EVENTS, [row(1)])
    with pytest.raises(StoreError, match="given up"):
        await store.finish_import(imported(no, project_id), by=SERVER)
    assert await store.run(RUN) is None
    await purge_all(store, limit_rows=2)
    assert await store.steps(no) == []
    await import_run(store, project_id)
    assert there(await store.run(RUN)).no > no, "no number is given twice"


async def test_an_import_that_goes_on_is_not_taken_for_one_whose_process_is_gone(store: Store) -> None:
    project_id = await project_id_of(store)
    await store.hold_lease("ours", until="2999-01-01", renew=False)
    no, _ = await asyncio.gather(store.begin_import(project_id, RUN), store.abandon_imports())
    await store.import_rows(no, EVENTS[:2], [row(1)])
    await store.abandon_imports()
    await store.import_rows(no, EVENTS[2:], [])
    await store.finish_import(imported(no, project_id), by=SERVER)
    # Nor is one that is done.
    await store.abandon_imports(no)
    await store.abandon_imports()
    assert await store.purged_runs(limit=1000) == []
    assert await store.events(no, after=0, limit_bytes=1000) == EVENTS
