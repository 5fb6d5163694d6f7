"""What every store promises of recorded runs: found by their traces, queued nowhere, refused once deleted."""

from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import msgspec
import pytest

from runglass.errors import ImportConflict, StoreError
from runglass.store.base import Store
from runglass.store.imports import ImportedFlow
from runglass.store.records import FlowRecord, NewRecording, RunRecord
from runglass.support.clock import iso
from runglass.wire.admin_api import SERVER
from runglass.wire.query import RunQuery, first_id
from runglass.wire.query_parser import parse_run_query
from tests.conformance.stores import batch, make_run
from tests.conformance.test_imports import FLOW, RUN, import_run
from tests.records import new_recording, there

NOON, LATER = "2026-11-29T12:00:00.000Z", "2026-11-29T13:00:00.000Z"
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def otel(store: Store) -> FlowRecord:
    project = await store.ensure_project("acme", "demo")
    return await store.recorded_flow(project.id, "otel", most=10)


def recording(flow: FlowRecord, run_id: str, *, trigger: str = "recorded", **about: Any) -> NewRecording:
    about = {"trace_id": TRACE, "due_at": NOON, "trigger_type": trigger, **about}
    return new_recording(flow.project_id, flow.id, id=run_id, **about)


async def record(store: Store, run_id: str = "run-1", **about: Any) -> RunRecord:
    return there(await store.create_recording(recording(await otel(store), run_id, **about)))


async def end(store: Store, run: RunRecord, *, at: str = NOON) -> None:
    await store.append(batch(run, 0, b"{}"))
    await store.append(batch(run, 1, b"{}", status="completed", ended_at=at))


async def newest(store: Store, trace_id: str = TRACE) -> dict[str, RunRecord | None]:
    flow = await otel(store)
    return await store.recorded_traces(flow.project_id, [trace_id, "f" * 32])


async def test_a_slug_is_executable_or_recorded(store: Store) -> None:
    project = await store.ensure_project("acme", "demo")
    await store.put_draft(project.id, "bot", name=None, capture=None, source=b"{}")
    assert (await store.recorded_flow(project.id, "bot", most=10)).slug == "otel-bot"
    assert not there(await store.find_flow(project.id, "bot")).recorded
    await store.put_draft(project.id, "cat", name=None, capture=None, source=b"{}")
    for _ in range(2):
        # It is made beside as many as there may be.
        assert (await store.recorded_flow(project.id, "cat", most=1)).slug == "otel"
    project = await store.ensure_project("acme", "other")
    for slug in ("otel", "otel-otel"):
        await store.put_draft(project.id, slug, name=None, capture=None, source=b"{}")
    with pytest.raises(StoreError, match="the flows otel, otel-otel of project"):
        await store.recorded_flow(project.id, "another", most=0)


async def test_a_recorded_run_waits_for_no_process(store: Store) -> None:
    run = await record(store)

    async def assert_nobody_has_it() -> None:
        assert await store.claim_runs("me", now=iso(store.clock.now()), limit=10) == []
        assert (await store.queued_runs(run.project_id, most=10)).waiting == 0
        overview = await store.overview()
        assert (overview.open_runs, overview.waiting) == ({}, 0)

    await assert_nobody_has_it()
    await store.append(batch(run, 0, b"{}"))
    await assert_nobody_has_it()
    # As at the start of a process that has the store to itself.
    await store.end_lease(None)
    await assert_nobody_has_it()
    await store.append(batch(run, 1, b"{}"))
    now = there(await store.run(run.id))
    assert (now.status, now.head, now.claims) == ("running", 2, 0)


async def test_a_run_is_due_until_it_has_ended(store: Store) -> None:
    first = await record(store)
    second = await record(store, "run-2", trace_id="1" * 32, due_at=LATER)
    assert await store.due_recordings(now="2026-11-29T11:59:59.999Z", limit=9) == []
    assert [run.id for run in await store.due_recordings(now=NOON, limit=9)] == ["run-1"]
    assert [run.id for run in await store.due_recordings(now=LATER, limit=9)] == ["run-1", "run-2"]
    assert [run.id for run in await store.due_recordings(now=LATER, limit=1)] == ["run-1"]

    await store.defer_recording(first.no, due_at="2026-11-29T14:00:00.000Z")
    assert [run.id for run in await store.due_recordings(now=LATER, limit=9)] == ["run-2"]
    await end(store, second)
    assert await store.due_recordings(now=LATER, limit=1) == []
    third = await record(store, "run-3", trace_id="3" * 32, due_at=LATER)
    await store.defer_recording(second.no, due_at=NOON)
    found = await store.due_recordings(now=LATER, limit=1)
    assert [run.id for run in found] == [third.id], "one that has ended takes no place of another"


async def test_a_deleted_run_leaves_a_tombstone_for_a_month(store: Store) -> None:
    run = await record(store)
    await store.append(batch(run, 0, b"{}"))
    # One that goes on is deleted as it is: no process has it that could end it.
    assert await store.purge_runs([run.no], by=SERVER) == 1
    assert await newest(store) == {TRACE: None}
    flow = await otel(store)
    assert await store.create_recording(recording(flow, "run-2")) is None
    assert await store.create_recording(recording(flow, "run-2", continues=run.id)) is None

    soon, month = (iso(store.clock.now() + timedelta(days=days)) for days in (29, 31))
    assert await store.due_recordings(now=soon, limit=9) == []
    assert await newest(store) == {TRACE: None}
    assert await store.due_recordings(now=month, limit=9) == []
    assert await newest(store) == {}
    await record(store, "run-2")


async def test_the_newest_part_says_whether_a_trace_is_deleted(store: Store) -> None:
    first = await record(store)
    await end(store, first)
    second = await record(store, "run-2", continues="run-1")
    third = recording(await otel(store), "run-3", continues="run-1")
    assert await store.create_recording(third) is None, "another one is the newest by now"
    await store.purge_runs([first.no])
    assert await newest(store) == {TRACE: second}
    await store.purge_runs([second.no])
    assert await newest(store) == {TRACE: None}


async def test_plain_runs_are_found_by_their_end(store: Store) -> None:
    now = store.clock.now()
    hour, day = (iso(now + timedelta(hours=hours)) for hours in (1, 24))
    runs = [await record(store, f"run-{n}", trace_id=f"{n}" * 32, trigger="plain") for n in range(4)]
    other = await record(store, "other", trace_id="e" * 32)
    for run, at in ((runs[1], hour), (runs[0], hour), (runs[2], day), (other, hour)):
        await end(store, run, at=at)
    project_id = other.project_id
    found = await store.ended_plain_runs(project_id, before=hour, limit=9)
    assert found == [runs[0].no, runs[1].no]
    assert await store.ended_plain_runs(project_id, before=hour, limit=1) == found[:1]

    # Nobody asked for it: of so many no tombstone stays.
    await store.purge_runs(found)
    assert await newest(store, "0" * 32) == {}
    assert await store.ended_plain_runs(project_id, before=hour, limit=9) == []
    await store.purge_runs([runs[2].no], by=SERVER)
    assert await newest(store, "2" * 32) == {"2" * 32: None}


async def test_a_plain_run_is_shown_once_it_has_a_model_call(store: Store) -> None:
    run = await record(store, trigger="plain")
    before = await store.last_change(run.project_id)
    await store.show_recording(run.no)
    await store.show_recording(run.no)
    now = there(await store.run(run.id))
    assert now.trigger_type == "recorded"
    assert await store.last_change(run.project_id) == before + 1
    await end(store, run)
    assert await store.ended_plain_runs(run.project_id, before=LATER, limit=9) == []


def told(**recording: object) -> bytes:
    """A summary with these words of the sender."""
    return msgspec.json.encode({"status": "running", "recording": {"traceId": TRACE, **recording}})


async def listed(store: Store, query: str) -> str:
    """The runs of the list, newest first, each by the last letter of its id."""
    project = await store.ensure_project("acme", "demo")
    wanted = parse_run_query(query, now=store.clock.now()).listed()
    page = await store.runs(project.id, wanted, limit=50)
    counts = await store.count_runs(project.id, wanted, until_ms=1000, buckets=1)
    assert page.position is None
    assert sum(counts.runs) == len(page.runs)
    return "".join(run.id[-1] for run in page.runs)


async def three_kinds(store: Store) -> None:
    """An executed run `a`, a recorded one `b` and a plain one `c`."""
    id_of = {name: first_id(number)[:-1] + name for number, name in enumerate("abc", 1)}
    await make_run(store, id_of["a"])
    session = str(uuid5(NAMESPACE_URL, "chat 7"))
    of_b = {"service": "Shop", "release": "1.2", "user": "Ada", "tags": ["Beta", "beta 2"]}
    of_c = {"service": "shop-db", "environment": "prod", "user": "b", "tags": ["other"]}
    for name, trigger, words in (("b", "recorded", of_b), ("c", "plain", of_c)):
        run = await record(store, id_of[name], trigger=trigger, trace_id=name * 32, session_id=session)
        await store.append(batch(run, 0, b"{}", summary=told(**words)))


async def test_a_list_has_plain_runs_where_it_is_asked_for_them(store: Store) -> None:
    await three_kinds(store)
    flow = (await otel(store)).id
    found = {
        "": ("environment:prod", "tag:bet"),
        "a": ("-status:running", "kind:executed", "-service:shop", "-user:ada"),
        "b": (
            *(f"flow:{flow}", "status:running", "kind:recorded", "-kind:executed", 'session:"chat 7"'),
            *("trigger:recorded -kind:plain", "service:shop", "release:1.2", "user:ada", "tag:beta"),
            "tag:beta,none -tag:other",
        ),
        "ba": ("", "-kind:plain"),
        "c": (
            *("kind:plain", "trigger:plain", 'session:"chat 7" kind:plain', "environment:PROD kind:plain"),
            *("user:b kind:plain,recorded", "-tag:beta kind:plain,recorded"),
        ),
        "ca": ("kind:executed,plain",),
        "cb": ("service:SHOP,shop-db kind:recorded,plain", 'tag:"Beta 2",other kind:plain,recorded'),
        "cba": ("kind:plain,recorded,executed",),
    }
    for expected, queries in found.items():
        for query in queries:
            assert await listed(store, query) == expected, query
    session = str(uuid5(NAMESPACE_URL, "chat 7"))
    project_id = (await otel(store)).project_id
    assert len(await store.session_runs(project_id, session, after="", limit=9)) == 1


async def test_a_list_is_told_of_a_plain_run_once_it_is_none(store: Store) -> None:
    run = await record(store, trigger="plain")
    query = RunQuery().listed()
    (change,) = await store.changed_runs(run.project_id, query, after=0, limit=9)
    assert (change.listing, change.could_meet) == (None, False)
    await store.show_recording(run.no)
    (change,) = await store.changed_runs(run.project_id, query, after=change.number, limit=9)
    assert there(change.listing).trigger_type == "recorded"
    plain = parse_run_query("kind:plain", now=store.clock.now())
    (gone,) = await store.changed_runs(run.project_id, plain, after=0, limit=9)
    assert (gone.listing, gone.could_meet) == (None, True)


FAR = ImportedFlow(FLOW, "far", b"", recorded=True)


async def import_recorded(store: Store, **fields: Any) -> int:
    """Imports a run of the trace; the number of its project."""
    project_id = (await store.ensure_project("acme", "demo")).id
    about = {"flow": FAR, "version": 0, "trace_id": TRACE, "trigger_type": "recorded"}
    await import_run(store, project_id, **{**about, **fields})
    return project_id


async def test_an_imported_run_has_its_trace(store: Store) -> None:
    await import_recorded(store)
    flow = there(await store.flow(FLOW))
    assert (flow.recorded, await store.versions(FLOW)) == (True, [])
    assert await newest(store) == {TRACE: await store.run(RUN)}
    # What comes later goes behind it.
    await record(store, continues=RUN)


async def test_an_imported_run_takes_no_trace_from_a_live_one(store: Store) -> None:
    live = await record(store)
    await import_recorded(store, trigger_type="plain")
    assert await newest(store) == {TRACE: live}
    # It is known for one that lists do not show.
    assert len(await store.ended_plain_runs(live.project_id, before="9999", limit=9)) == 1


@pytest.mark.parametrize("order", [("part-1", "part-2", "part-3"), ("part-2", "part-3", "part-1")])
async def test_imported_runs_of_a_trace_are_in_the_order_of_time(store: Store, order: list[str]) -> None:
    for run_id in order:
        await import_recorded(store, id=run_id)
    last = there((await newest(store))[TRACE])
    assert last.id == "part-3"
    earlier = await store.earlier_parts(last.no)
    assert [run.id for run in earlier] == ["part-1", "part-2"]


async def test_a_trace_that_was_deleted_is_back_with_an_import(store: Store) -> None:
    run = await record(store)
    await store.purge_runs([run.no], by=SERVER)
    await import_recorded(store)
    assert await newest(store) == {TRACE: await store.run(RUN)}


async def test_a_run_is_not_imported_into_a_flow_of_another_kind(store: Store) -> None:
    project_id = (await store.ensure_project("acme", "demo")).id
    await import_run(store, project_id)
    with pytest.raises(ImportConflict, match="cannot be made in this project"):
        await import_recorded(store, id="other")
    assert await newest(store) == {}
