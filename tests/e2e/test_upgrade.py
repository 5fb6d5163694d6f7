"""Data folders that earlier versions wrote: who upgrades them, and what is in them afterwards.

Each of `tests/data` is the text of a database as a server of that schema left it, after the same five runs:
one with a retry, a loop, a branch that was skipped and one that failed; one that failed; one with a tool's
answer; one that waits for its tool; one that was cancelled while a step ran. That of PostgreSQL has four: two
with a branch that was cut off, of which one waits for its tool; one that failed; one that was cancelled.
"""

import asyncio
import json
import lzma
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runglass import Client
from runglass.cli.exit_codes import Exit
from runglass.log.events import decode_event
from runglass.log.fold import fold
from runglass.store.data_folder import exclusive
from runglass.testing import RunningServer, running_server
from tests.contract.test_tool_calls import TOOLS, results_of, resumption
from tests.contract.wire import http_for
from tests.e2e.command import runglass
from tests.e2e.conftest import Printed
from tests.outlines import rows_in
from tests.postgres_server import postgres_server
from tests.records import there

DATA = Path(__file__).parents[1] / "data"
NO_JSON = b":null, no JSON"
FOREVER_H = 1e6
"""Else the run that has waited for its tool since then is given up."""


def text_of(database: str) -> str:
    return lzma.decompress((DATA / f"{database}.sql.xz").read_bytes()).decode()


@pytest.fixture(params=[4, 19])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    text = text_of(f"schema-{request.param}")
    with closing(sqlite3.connect(tmp_path / "runglass.db")) as database:
        database.executescript(text)
    (tmp_path / "runglass.db").chmod(0o600)
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(".db")}


def checked(folder: Path) -> Any:
    return json.loads(runglass("data", "check", "--all", "--json", "--data", folder).stdout)


@pytest.fixture
def server(folder: Path) -> Iterator[RunningServer]:
    with running_server(data=folder, pause_limit_h=FOREVER_H) as server:
        yield server


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as http:
        yield http


def test_other_commands_leave_an_older_database_as_it_is_and_so_does_an_upgrade_beside_a_server(
    folder: Path, printed: Printed
) -> None:
    before = everything(folder)
    for command in ("data usage", "data check", "projects list", "keys create acme/demo --create"):
        out, err = printed(*command.split(), "--data", str(folder), code=Exit.FAILED)
        assert out == ""
        assert "of an older version" in err
        assert f"runglass migrate --store sqlite:///{folder / 'runglass.db'}" in err
    with exclusive(folder / "runglass.db"):
        err = printed("migrate", "--data", folder, code=Exit.FAILED).err
    assert "another process runs flows" in err
    assert everything(folder) == before


def test_what_upgrades_says_so_before_and_makes_a_copy(folder: Path) -> None:
    before = everything(folder)
    of_a_killed_one = folder / ".runglass-schema-4-20260101T000000.db.77.part"
    of_a_killed_one.touch()
    done = runglass("migrate", "--data", folder)
    assert done.returncode == Exit.OK
    assert not of_a_killed_one.exists()
    (copy,) = folder.glob("runglass-schema-*.db")
    said, did = done.stderr.splitlines()
    assert "upgrading the database" in said
    assert f"it is copied to '{copy}' first" in said
    assert "upgraded the database" in did
    with closing(sqlite3.connect(copy)) as database, closing(sqlite3.connect(":memory:")) as old:
        old.deserialize(before["runglass.db"])
        assert list(database.iterdump()) == list(old.iterdump())
    assert checked(folder) == {"ok": True, "runs": 5, "foldedRuns": 5, "problems": []}
    again = runglass("migrate", "--data", folder)
    assert (again.returncode, again.stderr) == (Exit.OK, "")


def test_an_upgrade_makes_no_copy_where_none_is_wanted(folder: Path) -> None:
    done = runglass("migrate", "--no-backup", "--data", folder)
    assert done.returncode == Exit.OK
    assert "no copy is made" in done.stderr
    assert list(folder.glob("*.db")) == [folder / "runglass.db"]


def test_a_server_upgrades_the_folder_and_has_its_runs_with_all_that_follows_from_their_logs(
    http: httpx2.Client, folder: Path
) -> None:
    assert len(list(folder.glob("runglass-schema-*.db"))) == 1
    runs = http.get("/flow-runs").json()["runs"]
    assert [run["status"] for run in runs] == ["cancelled", "paused", "completed", "failed", "completed"]
    found = http.get("/flow-runs", params={"q": "model:echo"}).json()["runs"]
    assert [run["id"] for run in found] == [run["id"] for run in runs]
    assert [run["totals"]["byModel"]["echo"]["calls"] for run in runs] == [1, 1, 2, 3, 4]
    for run in runs:
        totals = run["totals"]
        assert totals["byModel"]["echo"]["tokens"] == totals["tokens"]
        assert totals["byModel"]["echo"].get("costUsd") == totals.get("costUsd")
    cancelled, _, _, failed, completed = runs
    assert (cancelled["totals"]["cancelled"], cancelled["error"]["code"]) == (1, "CANCELLED")
    assert failed["error"] == {
        "code": "CODE_ERROR",
        "message": "ValueError: asked to (line 2)",
        "stepId": "last",
    }
    rows = rows_in(http.get(f"/flow-runs/{completed['id']}/trace/outline").content)
    tops = [row["name"] for row in rows if not row["depth"]]
    assert tops == ["ask", "words", "each", "route", "both", "last"]
    statuses = Counter(row["status"] for row in rows)
    assert statuses == {"completed": 18, "failed": 3, "retried": 2, "skipped": 2}


def test_a_run_that_waited_for_its_tool_goes_on_after_the_upgrade(http: httpx2.Client, folder: Path) -> None:
    (paused,) = http.get("/flow-runs", params={"status": "paused"}).json()["runs"]
    with http.stream("GET", f"/flow-runs/{paused['id']}/trace/stream") as stream:
        pause = next(
            json.loads(line.removeprefix("data: "))
            for line in stream.iter_lines()
            if '"eventType":"step_paused_for_tool_calls"' in line
        )
    pause["pausedAtStep"] = pause["stepId"]
    body = resumption(pause, results_of(pause)) | {"tools": TOOLS[:1]}
    assert http.post("/seq/acme/demo/talk/execute", json=body).json()["status"] == "completed"
    totals = http.get(f"/flow-runs/{paused['id']}").json()["totals"]
    assert totals["byModel"]["echo"]["calls"] == 2
    assert checked(folder)["problems"] == []


@pytest.mark.parametrize("folder", [4], indirect=True)
def test_money_stays_exact_and_runs_without_a_log_have_totals(folder: Path, printed: Printed) -> None:
    with closing(sqlite3.connect(folder / "runglass.db")) as database, database:
        database.execute(
            "UPDATE project SET budget_pico = 9000000000000000005, spent_pico = 9000000000000000001"
        )
        # One that has not begun, and one whose events are missing.
        database.execute(
            "INSERT INTO run (id, project_id, flow_id, version, status, trigger_type, capture, summary, head)"
            " SELECT 'new-' || v, project_id, flow_id, 7, 'pending', 'api', 'off', x'7b7d', v FROM run,"
            " (SELECT 0 AS v UNION SELECT 2) WHERE no = 1"
        )
    printed("migrate", "--data", folder)
    project = json.loads(printed("projects", "budget", "acme/demo", "--data", folder, "--json").out)
    assert (project["budgetUsd"], project["spentUsd"]) == ("9000000.000000000005", "9000000.000000000001")
    with closing(sqlite3.connect(folder / "runglass.db")) as database:
        found = database.execute("SELECT summary FROM run WHERE id LIKE 'new-%'").fetchall()
    names = ("completed", "failed", "retried", "skipped", "unmeteredCalls", "unpricedCalls")
    summary = {"flowSlug": "report", "version": 7, "totals": dict.fromkeys(names, 0)}
    assert [json.loads(text) for (text,) in found] == [summary] * 2


def test_what_cannot_be_read_is_kept_and_keeps_no_other_run_from_the_upgrade(folder: Path) -> None:
    no_time = """replace(CAST(data AS TEXT), '"at":"2', '"at":"x')"""
    last = "SELECT id, no, summary FROM run ORDER BY no DESC LIMIT 2"
    with closing(sqlite3.connect(folder / "runglass.db")) as database, database:
        (no_log, number, summary), (no_row, other, _) = database.execute(last).fetchall()
        database.execute(f"UPDATE event SET data = CAST({no_time} AS BLOB) WHERE run_no = ?", (number,))
        database.execute("UPDATE run SET summary = ? WHERE no = ?", (NO_JSON, other))
        database.execute("UPDATE step SET data = ? WHERE run_no = ?", (NO_JSON, other))
    is_first = b'"totals"' not in summary
    assert runglass("migrate", "--data", folder).returncode == Exit.OK
    with closing(sqlite3.connect(folder / "runglass.db")) as database:
        (_, _, kept), (_, _, unread) = database.execute(last).fetchall()
        steps = database.execute("SELECT DISTINCT data FROM step WHERE run_no = ?", (other,)).fetchall()
    assert (unread, steps) == (NO_JSON, [(NO_JSON,)])
    before = {name: value for name, value in json.loads(summary).items() if value is not None}
    after = json.loads(kept)
    assert before == {name: after[name] for name in before}
    assert (after["flowSlug"], after["version"], None in after.values()) == ("slow", 1, False)
    assert after["totals"].get("costUsd") == ("0.000004" if is_first else None)
    *of_rows, of_log = checked(folder)["problems"]
    assert [f"run {no_row} cannot be read" in problem for problem in of_rows] == [True] * 3
    assert re.search(f"run {no_log} cannot be read: Invalid isoformat", of_log)


def test_a_postgres_has_the_runs_of_an_older_version_with_all_that_follows_from_their_logs() -> None:
    postgres, name = postgres_server(), "runglass_schema_5"
    asyncio.run(postgres.execute(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}"))
    asyncio.run(postgres.execute(text_of("postgres-schema-5"), database=name))
    with running_server(store=postgres.address(name), pause_limit_h=FOREVER_H) as server:
        with Client(server.key, base_url=server.base_url, org="acme", project="demo") as client:
            runs = client.runs().runs
            traces = [client.run(run.id).trace() for run in runs]
        store = server.runtime.store
        for trace in traces:
            record = there(server.call(store.run(trace.flow_run.id)))
            events = server.call(store.events(record.no, after=0, limit_bytes=sys.maxsize))
            assert trace == fold(decode_event(data) for _, data in events)
    asyncio.run(postgres.drop_database(name))
    assert [trace.flow_run.totals for trace in traces] == [run.totals for run in runs]
    assert [(run.status, run.totals and run.totals.cancelled) for run in runs] == [
        ("cancelled", 1),
        ("paused", 1),
        ("failed", 0),
        ("completed", 1),
    ]
