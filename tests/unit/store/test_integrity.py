"""What `runglass data check` claims to see, broken on purpose on each kind of store; and what is sound."""

import asyncio
import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from runglass import Client, FlowExecutionError, Recorder
from runglass.config.settings import Price
from runglass.store.integrity import BELONGS, MOST_PROBLEMS, USUAL, Checked, CheckLimits
from runglass.store.postgres import integrity
from runglass.store.postgres import sql_helpers as postgres_sql
from runglass.store.run_tables import CONTENT, ROWS_OF_RUN
from runglass.store.sqlite import database_file
from runglass.store.sqlite import sql_helpers as sqlite_sql
from runglass.store.sqlite.migrations import migrate_sqlite
from runglass.store.statements import Steps, Work, done, fetch
from runglass.testing import RunningServer, running_server
from tests.contract.wire import set_budget
from tests.postgres_server import connected, postgres_database

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)]
FLOWS = """
slug: greet
steps:
  - {id: first, type: passthrough}
  - id: again
    type: code
    retry: {max_attempts: 2, initial_delay_ms: 0}
    code: "return {'n': 1 // (attempt - 1)}"
  - {id: say, type: llm, model: echo, prompt: "hello"}
  - {id: last, type: passthrough}
---
slug: fails
steps: [{id: no, type: code, code: "return 1 // 0"}]
---
slug: wait
steps: [{id: hold, type: wait, ms: 600000}]
---
slug: rounds
steps:
  - id: each
    type: loop
    over: list(range(12))
    steps:
      - {id: keep, type: passthrough}
      - {id: say, type: llm, model: echo, prompt: "round {{ index }}"}
"""
PRICE = Price(input_per_mtok=Decimal("0.15"), output_per_mtok=Decimal("0.6"))
SMALL = CheckLimits(runs=2, log_bytes=2000, step_bytes=3000)
"""Limits that the runs of these tests are beyond: several chunks, and each run in pages and parts."""

ENDED = "(SELECT min(no) FROM run WHERE status = 'completed')"
LIVE = "(SELECT min(no) FROM run WHERE status = 'running')"


Damage = Work[Any] | str
"""What breaks a store: some work, or a statement."""


def statement(sql: str, **values: Any) -> Any:
    """The work of a statement, which may name `:junk`."""
    return done(sql, **values, **({"junk": b"x"} if ":junk" in sql else {}))


class Opened:
    """A store, opened to be damaged and checked; `settings` are those of a server on it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        # The table with what is counted of projects, in damage `TOTALS`.
        self.totals = "project_total" if "store" in settings else "project"

    def checked(self, *damage: Damage, limits: CheckLimits = USUAL) -> Checked:
        """What a check finds after the damage, which is undone."""
        works = [
            statement(each.replace("TOTALS", self.totals)) if isinstance(each, str) else each
            for each in damage
        ]
        how: dict[str, Any] = {"every_run": True, "tell": Mock(), "limits": limits}
        if "store" in self.settings:
            return asyncio.run(self._checked_on_postgres(works, how))
        path = self.settings["data"] / "runglass.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE" if works else "BEGIN")
            for work in works:
                sqlite_sql.perform(work, db)
            return database_file.check_on(db, **how)

    async def _checked_on_postgres(self, works: list[Work[Any]], how: dict[str, Any]) -> Checked:
        async with connected(self.settings["store"]) as db:
            await db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            if works:
                # No trigger mends what is broken, and no foreign key refuses it.
                await db.execute("SET LOCAL session_replication_role = replica")
            for work in works:
                await postgres_sql.perform(work, db)
            return await integrity.check_on(db, **how)


@contextmanager
def new_store(kind: str, folder: Path) -> Iterator[Opened]:
    """A new store of this kind, until the block ends."""
    if kind == "sqlite":
        yield Opened(data=folder)
    else:
        with postgres_database() as address:
            yield Opened(store=address)


@pytest.fixture(scope="module", params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A store with four runs that have ended, and one that was left off; no process has it."""
    with new_store(request.param, tmp_path_factory.mktemp("data")) as opened:
        with server_with_flows(opened) as server, client_of(server) as client:
            for slug in ("greet", "greet", "rounds"):
                client.flow(slug).execute(parameters={"x": "y" * 500})
            with pytest.raises(FlowExecutionError):
                client.flow("fails").execute()
            job = client.flow("wait").execute_async()
            events = client.run(job.execution_id).live_trace()
            while next(events).event_type != "step_started":
                pass
            events.close()
        yield opened


@contextmanager
def server_with_flows(opened: Opened) -> Iterator[RunningServer]:
    """A server on the store, with flows in a project that has a budget."""
    with running_server(capture="full", prices={"echo": PRICE}, **opened.settings) as server:
        for flow in FLOWS.split("---\n"):
            server.push(flow)

        set_budget(server, "1")
        yield server


def client_of(server: RunningServer) -> Client:
    return Client(server.key, base_url=server.base_url, org="acme", project="demo")


def test_nothing_is_wrong_with_a_sound_store(store: Opened) -> None:
    assert store.checked() == (5, 5, [])


def test_large_runs_are_checked_page_by_page_and_many_in_chunks(store: Opened) -> None:
    assert store.checked(limits=SMALL) == (5, 5, [])
    changed = "UPDATE step SET status = 'failed' WHERE position = 20"
    gone = "DELETE FROM step WHERE position = 24"
    for limits in (USUAL, SMALL):
        (problem,) = store.checked(changed, limits=limits).problems
        assert "attempt 1 of the step at position 20" in problem
        (problem,) = store.checked(gone, limits=limits).problems
        assert problem.endswith("is not stored, though its events name it")


def replaced(table: str, old: bytes, new: bytes, where: str) -> Work[None]:
    """Puts other bytes into the data of the rows."""

    def work() -> Steps[None]:
        column = "summary" if table == "run" else "data"
        rows = yield fetch(f"SELECT {column} FROM {table} WHERE {where}")
        assert rows
        for (data,) in rows:
            assert old in data
            sql = f"UPDATE {table} SET {column} = :new WHERE {where} AND {column} = :data"
            yield done(sql, new=data.replace(old, new), data=data)

    return work


OF_ENDED = f"run_no = {ENDED}"
STRAYS = {
    "event": "(run_no, seq, data) VALUES (:no, 1, :junk)",
    "step": "(run_no, position, step_id, loop_path, attempt, status, data)"
    " VALUES (:no, 1, 's', '', 1, 'x', :junk)",
    "step_attempt": "(run_no, position, step_id, loop_path, attempt, status, data)"
    " VALUES (:no, 1, 's', '', 1, 'x', :junk)",
    "kept_outline": "(run_no, part, data) VALUES (:no, 0, :junk)",
    "checkpoint": "(run_no, step_id, loop_path, seq, data) VALUES (:no, 's', '', 1, :junk)",
    "void_checkpoint": "(run_no, step_id, seq) VALUES (:no, 's', 1)",
    "owed": "(run_no, seq, data) VALUES (:no, 1, :junk)",
    "run_request": "(run_no, request) VALUES (:no, :junk)",
    "run_outcome": "(run_no, ended_at) VALUES (:no, '')",
    "call_answer": "(project_id, key, run_no, answered_at, answer) VALUES (1, 'k', :no, '', :junk)",
}
"""A row of each table with rows of runs."""


def stray(table: str, run: str) -> Work[None]:
    """Adds a row of that run, or of one with the number behind it."""

    def work() -> Steps[None]:
        [(number,)] = yield fetch(f"SELECT {run}")
        yield statement(f"INSERT INTO {table} {STRAYS[table]}", no=number)

    return work


DAMAGE: list[tuple[Damage, str]] = [
    # Logs.
    (f"DELETE FROM event WHERE {OF_ENDED} AND seq = 2", "should have events 1 to"),
    (f"UPDATE run SET head = head + 1 WHERE no = {ENDED}", "should have events 1 to"),
    (f"UPDATE event SET data = :junk WHERE {OF_ENDED} AND seq = 3", "event 3 of run"),
    (replaced("event", b'"seq":4,', b'"seq":5,', f"{OF_ENDED} AND seq = 4"), "says that it is event 5"),
    # Traces.
    (replaced("step", b'"completed"', b'"failed"', f"{OF_ENDED} AND position = 1"), "step at position 1 of"),
    (f"UPDATE step SET data = :junk WHERE {OF_ENDED} AND position = 2", "cannot be read"),
    (f"UPDATE step SET status = 'failed' WHERE {OF_ENDED} AND position = 1", "step at position 1 of"),
    (f"UPDATE step SET position = 9 WHERE {OF_ENDED} AND position = 1", "4 steps, at positions 2 to 9"),
    (f"DELETE FROM step WHERE {OF_ENDED} AND position = 4", "at position 4 of run {run} is not stored"),
    (f"DELETE FROM step_attempt WHERE {OF_ENDED}", "attempt 1 of the step at position 2 of run {run} is not"),
    (replaced("step_attempt", b'"failed"', b'"completed"', OF_ENDED), "attempt 1 of the step at position 2"),
    (stray("step_attempt", ENDED), "attempt 1 of the step at position 1 of run {run} "),
    # What a run's row repeats.
    (replaced("run", b'"completed"', b'"failed"', f"no = {ENDED}"), "the summary of run {run} is not"),
    (f"UPDATE run SET summary = :junk WHERE no = {ENDED}", "the summary of run {run} cannot be read"),
    *(
        (f"UPDATE run SET {column} = {value} WHERE no = {ENDED}", f"the column {column} of run {{run}}")
        for column, value in {
            "status": "'failed'",
            "version": "version + 1",
            "trigger_type": "'x'",
            "session_id": "'x'",
            "ended_at": "'2020-01-01T00:00:00.000Z'",
            "duration_ms": "duration_ms + 1",
            "cost_usd": "cost_usd + 0.000001",
            "tokens": "NULL",
        }.items()
    ),
    # Rows that belong to nothing.
    *(
        (stray(table, "1 + (SELECT max(no) FROM run)"), f"table {table} has 1 rows of run number")
        for table in ROWS_OF_RUN
    ),
    (f"INSERT INTO purged_run (run_no) VALUES ({ENDED})", "run {run} is there, and marked as purged"),
    (f"INSERT INTO importing_run (run_no) VALUES ({ENDED})", "as not imported yet"),
    ("INSERT INTO ended_run (run_no) VALUES (7)", "table ended_run has run number 7"),
    (
        "INSERT INTO call (project_id, key, digest, run_id, head, created_at)"
        " VALUES (1, 'k', :junk, 'gone', 0, '')",
        "the call 'k' is of run gone, which is not there",
    ),
    (
        "INSERT INTO flow_version (flow_id, version, source, created_at) VALUES ('gone', 1, :junk, '')",
        "table flow_version has 1 rows of flow gone",
    ),
    (f"UPDATE run SET flow_id = 'gone' WHERE no = {ENDED}", "table run has 1 rows of flow gone"),
    # What belongs to runs that have ended, and to those that go on.
    (
        f"INSERT INTO ended_run (run_no) VALUES ({LIVE})",
        "is active, but its checkpoints are due for deletion",
    ),
    (f"DELETE FROM run_request WHERE run_no = {LIVE}", "is active, but its request is gone"),
    (stray("run_request", ENDED), "run {run} has ended, and what was asked of it is still there"),
    (stray("checkpoint", ENDED), "run {run} has ended, and 1 of its checkpoints are still there"),
    (f"UPDATE run SET owner = 'p' WHERE no = {ENDED}", "run {run} has ended, and process p still has it"),
    # The index of errors.
    (
        "INSERT INTO run_error (project_id, id, run_no, flow_id, status, trigger_type, version, error)"
        " SELECT project_id, id, no, flow_id, status, trigger_type, version, 'x' FROM run"
        f" WHERE no = {ENDED}",
        "the error of run {run} is not indexed",
    ),
    ("DELETE FROM run_error", "the error of run {run} is not indexed"),
    # Sums.
    ("UPDATE TOTALS SET data_bytes = data_bytes + 1", "project acme/demo counts"),
    ("UPDATE TOTALS SET reserved_usd = '1'", "project acme/demo holds back $"),
    ("UPDATE TOTALS SET spent_usd = '0'", "project acme/demo has spent $0, and its runs cost $"),
    (f"UPDATE run SET open_bytes = open_bytes + 1 WHERE no = {ENDED}", "bytes kept for its callers"),
    (f"UPDATE run SET log_bytes = 1000000 WHERE no = {ENDED}", "1,000,000 bytes of events and steps"),
    (f"UPDATE run SET log_bytes = log_bytes - 1 WHERE no = {LIVE}", "project acme/demo counts"),
    (f"UPDATE run SET change_no = 1000000 WHERE no = {ENDED}", "of its runs, and one has number 1000000"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE, ids=range(len(DAMAGE)))
def test_each_kind_of_damage_is_found_and_named(store: Opened, damage: Damage, said: str) -> None:
    require_said(said, store.checked(damage))


def test_content_that_goes_bit_by_bit_is_no_damage(store: Opened) -> None:
    def strip(table: str, where: str) -> Work[None]:
        def work() -> Steps[None]:
            for (data,) in (yield fetch(f"SELECT data FROM {table} WHERE {where}")):
                sql = f"UPDATE {table} SET data = :stripped WHERE {where} AND data = :data"
                yield done(sql, stripped=CONTENT[table](data), data=data)

        return work

    bites = [
        strip("event", f"{OF_ENDED} AND seq < 6"),
        strip("event", OF_ENDED),
        strip("step", f"{OF_ENDED} AND position < 3"),
    ]
    for done_so_far in range(1, len(bites) + 1):
        problems = store.checked(*bites[:done_so_far]).problems
        # What is counted changes with each bite, and not here.
        assert [each for each in problems if "bytes of events and steps" not in each] == []
    other = replaced("step", b"yyyy", b"zzzz", f"{OF_ENDED} AND position = 1")
    require_said("the step at position 1 of run", store.checked(other))


def require_said(said: str, found: Checked) -> None:
    pattern = re.escape(said).replace(r"\{run\}", r"\S+")
    assert any(re.search(pattern, problem) for problem in found.problems), found.problems


@pytest.mark.parametrize("store", [pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM queue", "waits for a process, and is not in the queue"),
        (
            "INSERT INTO queue (run_no, project_id, pick) VALUES (7, 1, 1)",
            "table queue has 1 rows of run number 7",
        ),
        (
            f"INSERT INTO queue (run_no, project_id, pick) VALUES ({ENDED}, 1, 1)",
            "is in the queue, and does not wait for a process",
        ),
        ("UPDATE queue SET project_id = 77", "is in the queue of another project"),
        *(
            (f"UPDATE run SET {column} = {value} WHERE no = {ENDED}", f"the column {column} of run")
            for column, value in {
                "started_ms": "started_ms + 1",
                "live_cost_usd": "1",
                "live_tokens": "0",
                "models": "'{echo,other}'",
                "error": "'x'",
            }.items()
        ),
        ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'run_by_flow'::regclass", "run_by_flow"),
        (
            "ALTER TABLE run ADD CONSTRAINT named CHECK (no > 0) NOT VALID",
            "the constraint named of table run",
        ),
        ("ALTER SEQUENCE run_number RESTART WITH 1", "the sequence run_number is behind"),
        ("ALTER TABLE queue DISABLE TRIGGER queue_places", "the trigger queue_places of table queue"),
        (
            "DO $$ BEGIN EXECUTE 'ALTER TABLE step_attempt DETACH PARTITION step_attempt_'"
            " || to_char(CURRENT_TIMESTAMP AT TIME ZONE 'UTC', 'YYYY_MM'); END $$",
            "table step_attempt has no partition step_attempt_",
        ),
    ],
)
def test_damage_that_only_postgresql_can_have_is_found_and_named(
    store: Opened, damage: str, said: str
) -> None:
    require_said(said, store.checked(damage))


def test_a_check_ends_with_so_many_problems(store: Opened) -> None:
    def strays() -> Steps[None]:
        for number in range(1, MOST_PROBLEMS + 50):
            yield statement(f"INSERT INTO owed {STRAYS['owed']}", no=-number)

    problems = store.checked(strays).problems
    assert len(problems) == MOST_PROBLEMS + 1
    assert problems[-1] == "there may be more: the check ended with the first 1,000"


def test_each_declared_reference_is_followed() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate_sqlite(db)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        declared = {
            (table, row[3], row[2])
            for table in tables
            for row in db.execute(f"PRAGMA foreign_key_list({table})")
        }
    assert declared
    assert declared <= set(BELONGS)


@pytest.mark.slow
def test_a_recorded_run_whose_row_is_of_the_version_before_is_sound(tmp_path: Path) -> None:
    """Which has not what queries ask of users and tags; all else is compared."""
    without = "UPDATE run SET models = ARRAY(SELECT name FROM unnest(models) AS name WHERE name !~ {!r})"
    with new_store("postgres", tmp_path) as store:
        with (
            running_server(**store.settings) as server,
            Recorder("agent", api_key=server.key, base_url=server.base_url, spool=None) as rec,
        ):
            with rec.run("run", user="Ada", tags=["beta"]):
                pass
            assert rec.flush()
            with client_of(server) as client:
                assert len(client.runs(query="user:ada tag:beta service:agent").runs) == 1
        assert store.checked(without.format("^(user|tag)=")).problems == []
        [problem] = store.checked(without.format("^service=")).problems
    assert problem.startswith("the column models of run")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_store_to_which_others_write_has_nothing_wrong(kind: str, tmp_path: Path) -> None:
    with new_store(kind, tmp_path) as store, server_with_flows(store) as server, client_of(server) as client:
        is_enough = threading.Event()

        def write() -> None:
            """Runs flows, cancels some, and deletes some."""
            for number in count():
                if is_enough.is_set():
                    return
                result = client.flow(["greet", "rounds"][number % 2]).execute(parameters={"x": "y" * 500})
                job = client.flow("wait").execute_async()
                client.run(job.execution_id).cancel()
                if number % 3 == 0:
                    client.run(result.execution_id or "").delete()

        with ThreadPoolExecutor(2) as writers:
            written = [writers.submit(write) for _ in range(2)]
            found = [store.checked()]
            try:
                while found[-1].runs < 60 and not found[-1].problems and not any(map(Future.done, written)):
                    found += store.checked(limits=SMALL), store.checked()
            finally:
                is_enough.set()
        assert [each.problems for each in found if each.problems] == []
        assert [each.result() for each in written] == [None, None]
        assert found[-1].runs >= 60
