"""How SQLite finds runs: by indexes alone, in pieces of any size, and never longer than it has time."""

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from runglass.log.events import StepCompleted, encode_event
from runglass.store.query_search import SearchLimits
from runglass.store.records import Append
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.query import RunQuery, Term, first_id
from tests.conformance.test_run_lists import CASES, NOW, PATIENT, all_pages, asked, expected, known_runs
from tests.records import new_run
from tests.unit.store.test_sqlite import on_each_reader


async def plan_of(store: SqliteStore, sql: str) -> list[str]:
    """The lines of SQLite's plan for the statement."""
    rows = await store.connections.read(lambda db: db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())
    return [str(row[3]) for row in rows]


@pytest.fixture(scope="module")
def known_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the known runs, which tests only read."""
    path = tmp_path_factory.mktemp("known") / "db"

    async def make() -> None:
        async with SqliteStore(path) as store:
            await known_runs(store)

    asyncio.run(make())
    return path


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(SearchLimits(look_s=0.0), id="each-page-is-one-piece"),
        pytest.param(SearchLimits(look_s=0.0, first_rows=0), id="pieces-of-a-row-or-two"),
        pytest.param(SearchLimits(look_s=60.0, first_rows=0), id="pages-of-such-pieces"),
        pytest.param(SearchLimits(most_groups=0), id="too-many-groups"),
    ],
)
async def test_the_same_runs_are_found_whatever_the_limits(known_file: Path, limits: SearchLimits) -> None:
    async with SqliteStore(known_file, search=limits) as store:
        known = await known_runs(store)
        for text, meets in CASES:
            found = await all_pages(store, await asked(store, text), limit=20)
            assert found == await expected(store, known, meets), text


@pytest.mark.parametrize("text", [text for text, _ in CASES])
async def test_no_query_scans_a_table_or_sorts(known_file: Path, text: str) -> None:
    statements: list[str] = []
    async with SqliteStore(known_file) as store:
        query = await asked(store, text)
        await on_each_reader(store, lambda db: db.set_trace_callback(statements.append))
        await store.runs(1, query, limit=20)
        await store.count_runs(1, query, until_ms=round(NOW.timestamp() * 1000), buckets=10)
        await on_each_reader(store, lambda db: db.set_trace_callback(None))
        selects = {
            each
            for each in statements
            if each.startswith(("SELECT", "WITH")) and re.search(r"\brun(_error)?\b", each)
        }
        assert selects
        for select in selects:
            plan = await plan_of(store, select)
            assert any("USING" in line for line in plan), (select, plan)
            of_run = [line for line in plan if line.startswith(("SCAN run", "USE TEMP B-TREE"))]
            # The runs of a page, which are few, are put in order.
            assert not of_run or " WHERE id IN (" in select, (select, plan)
            # From one group to the next it is one step.
            assert not select.startswith("WITH") or "(trigger_type,version)>(?,?)" in "".join(plan)


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("", "run_by_project (project_id=?"),
        ("flow:one", "run_by_flow (project_id=? AND flow_id=?"),
        ("status:failed", "run_by_status (project_id=? AND status=?"),
        (
            "flow:one status:failed trigger:job",
            "run_by_group (project_id=? AND flow_id=? AND status=? AND trigger_type=? AND version=?",
        ),
        ("session:00000000-0000-4000-8000-000000000000", "run_by_session (project_id=? AND session_id=?"),
        ("duration:>1h", "run_by_project (project_id=?"),
        ("error:x", "run_error USING PRIMARY KEY (project_id=?"),
        ("error:x status:failed flow:one duration:>1h", "run_error USING PRIMARY KEY (project_id=?"),
    ],
)
async def test_each_filter_has_its_index(known_file: Path, text: str, index: str) -> None:
    statements: list[str] = []
    async with SqliteStore(known_file) as store:
        query = await asked(store, text)
        await on_each_reader(store, lambda db: db.set_trace_callback(statements.append))
        await store.runs(1, query, limit=20)
        await on_each_reader(store, lambda db: db.set_trace_callback(None))
        plans = [
            line
            for select in statements
            if select.startswith("SELECT count(*), min(id)")
            for line in await plan_of(store, select)
            if "id>? AND id<?" in line
        ]
    assert plans
    assert all(f"{index} AND id>? AND id<?)" in line for line in plans), plans


async def test_what_is_not_counted_in_time_is_said(known_file: Path) -> None:
    until_ms = round(NOW.timestamp() * 1000)
    async with SqliteStore(known_file, search=SearchLimits(count_s=0.0, first_rows=30)) as store:
        known = await known_runs(store)
        # The other one is of several parts of an index, of which as much is counted as of one.
        for text, buckets in (("duration:>=0s", 10), ("status:completed,failed duration:>=0s", 1)):
            query = await asked(store, text)
            counts = await store.count_runs(1, query, until_ms=until_ms, buckets=buckets)
            assert counts.counted_from_ms is not None
            ids = set(await all_pages(store, query, limit=200))
            counted = [run for run in known if run.id in ids and run.created_ms >= counts.counted_from_ms]
            assert 0 < sum(counts.runs) == len(counted) < len(ids)
            assert sum(counts.failed) == len([run for run in counted if run.status == "failed"])


async def test_one_by_one_the_counts_are_the_same(known_file: Path) -> None:
    until_ms = round(NOW.timestamp() * 1000)
    async with (
        SqliteStore(known_file, search=PATIENT) as store,
        SqliteStore(known_file, search=PATIENT._replace(most_counts=0)) as slow,
    ):
        for text, _ in CASES:
            query = await asked(store, text)
            counts = await store.count_runs(1, query, until_ms=until_ms, buckets=10)
            assert await slow.count_runs(1, query, until_ms=until_ms, buckets=10) == counts, text


async def test_a_log_that_takes_too_long_is_gone_on_with_where_the_page_before_ended(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "db", search=SearchLimits(look_s=0.0)) as store:
        project = await store.ensure_project("acme", "demo")
        flow = await store.put_draft(project.id, "one", name=None, capture=None, source=b"{}")
        for number in (1, 2):
            run = await store.create_run(new_run(project.id, flow.id, id=first_id(number)))
            words = ["early", *[f"filler {number}"] * 5, "late"]
            events = [
                encode_event(
                    StepCompleted(
                        execution_id=run.id,
                        step_id="s",
                        step_index=0,
                        attempt=1,
                        duration_ms=1,
                        output={"text": word},
                    )
                )
                for word in words
            ]
            await store.append(
                Append(run_no=run.no, head=0, fence=run.fence, events=events, status="running", summary=b"{}")
            )
        both = [first_id(2), first_id(1)]
        for text, wanted in (
            ("early late", both),
            ("late early", both),
            ('"filler 1" late', both[1:]),
            ('late -"filler 1"', both[:1]),
            ("late -early", []),
            ("never", []),
        ):
            assert await all_pages(store, await asked(store, text), limit=1) == wanted, text
        page = await store.runs(project.id, await asked(store, "late"), limit=1)
        assert page.runs == []
        assert page.position is not None
        assert (page.position.run_id, page.position.seq) == (first_id(2), 1)


async def test_of_another_projects_session_nothing_is_told(tmp_path: Path) -> None:
    session = "5e551011-0000-4000-8000-000000000000"
    query = RunQuery((Term("session", (session,)), Term("model", ("echo",), negated=True)))
    async with SqliteStore(tmp_path / "db", search=SearchLimits(look_s=0.0, first_rows=0)) as store:
        own = await store.ensure_project("acme", "own")
        other = await store.ensure_project("acme", "other")
        flow = await store.put_draft(other.id, "one", name=None, capture=None, source=b"{}")
        for number in range(1, 6):
            await store.create_run(new_run(other.id, flow.id, id=first_id(number), session_id=session))
        found = await store.runs(own.id, query, limit=1)
        assert (found.runs, found.position) == ([], None)
        counts = await store.count_runs(own.id, query, until_ms=1000, buckets=10)
        assert counts.from_ms == 1000
        assert len((await store.runs(other.id, query, limit=9)).runs) == 5
        assert (await store.count_runs(other.id, query, until_ms=1000, buckets=10)).from_ms == 1


@pytest.mark.parametrize("letters", [10, 60, 64, 65, 300])
async def test_a_text_of_any_length_is_found_where_it_stands_alone(tmp_path: Path, letters: int) -> None:
    there, content = 'Ä"' + "aB" * letters, 'Ä"' + "Ab" * letters
    event = msgspec.json.encode({"stepId": content[:-1] + "c", "output": {"x": [content]}})
    async with SqliteStore(tmp_path / "db") as store:
        project = await store.ensure_project("acme", "demo")
        flow = await store.put_draft(project.id, "one", name=None, capture=None, source=b"{}")
        run = await store.create_run(new_run(project.id, flow.id, id=first_id(1)))
        await store.append(
            Append(run_no=run.no, head=0, fence=run.fence, events=[event], status="running", summary=b"{}")
        )
        for text, is_there in ((there, True), (there + "c", False), (there[:-1] + "c", False)):
            query = RunQuery((Term("text", (text,)),))
            found = await store.runs(project.id, query, limit=1)
            assert bool(found.runs) == is_there, text


async def test_a_broken_summary_hides_no_other_run(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "db") as store:
        project = await store.ensure_project("acme", "demo")
        flow = await store.put_draft(project.id, "one", name=None, capture=None, source=b"{}")
        await store.create_run(new_run(project.id, flow.id, id=first_id(1), summary=b"\x00 no JSON"))
        totals = b'"totals":{"tokens":{"total":5},"byModel":{"echo":{}}}'
        good = b'{"startedAt":"2025-01-01T00:00:00.000Z",%b}' % totals
        await store.create_run(new_run(project.id, flow.id, id=first_id(2), summary=good))
        assert len((await store.runs(project.id, RunQuery(), limit=9)).runs) == 2
        for text in ("tokens:5", "model:echo", "duration:>1h", "-error:x tokens:5"):
            assert await all_pages(store, await asked(store, text), limit=9) == [first_id(2)], text
