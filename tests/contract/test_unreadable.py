"""Runs whose rows cannot be decoded: read with an error that names them, listed, cancelled and deleted."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx2
import pytest

from runglass.client import Client
from runglass.store.run_tables import ROWS_OF_RUN
from runglass.testing import RunningServer
from tests.collector import collecting
from tests.contract import wire
from tests.contract.test_span_export import send_all
from tests.contract.test_tool_calls import paused
from tests.contract.wire import execute
from tests.postgres_server import fetched, postgres_database
from tests.records import there
from tests.servers import served
from tests.unit.engine.test_unreadable import UPDATES
from tests.waiting import eventually

GARBAGE = b"\xff{garbage"
FLOWS = (wire.ANYTHING, wire.ENDLESS)
ODD_TIME = b'{"id":"%s","flowId":"f","status":"running","startedAt":"yesterday"}'


class Place(NamedTuple):
    """A store, which servers of a test may have one after the other; statements reach it past them."""

    settings: dict[str, Any]

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, with a question mark for each value."""
        if (address := self.settings.get("store")) is None:
            with closing(sqlite3.connect(self.settings["data"] / "runglass.db")) as database, database:
                return database.execute(sql, values).fetchall()
        first, *parts = sql.split("?")
        numbered = first + "".join(f"${number}{part}" for number, part in enumerate(parts, 1))
        return [tuple(row) for row in fetched(address, numbered, *values)]

    def spoil(self, what: str, run: str, data: bytes = GARBAGE) -> None:
        assert self.execute(f"{UPDATES[what]} RETURNING 1", data, run)


def place_of(server: RunningServer) -> Place:
    settings = server.runtime.settings
    return Place({"store": settings.store, "data": settings.data})


@pytest.fixture
def store(server: RunningServer) -> Place:
    """The store of the server of this module."""
    return place_of(server)


@pytest.fixture
def place(store_kind: str, tmp_path: Path) -> Iterator[Place]:
    """A store of its own."""
    if store_kind == "sqlite":
        yield Place({"data": tmp_path})
        return
    with postgres_database() as address:
        yield Place({"store": address})


def test_a_broken_summary_does_not_break_the_list_of_runs(store: Place, http: httpx2.Client) -> None:
    runs = [execute(http, "anything") for _ in range(3)]
    before = http.get("/flow-runs?limit=3").json()["runs"]
    store.spoil("summary", runs[1])
    listed = http.get("/flow-runs?limit=3").json()["runs"]
    assert [run["id"] for run in listed] == runs[::-1]
    assert [listed[0], listed[2]] == [before[0], before[2]]
    assert listed[1].pop("unreadable")
    assert listed[1].items() <= before[1].items()
    assert (listed[1]["status"], listed[1]["flowSlug"]) == ("completed", "anything")
    cursor = http.get("/flow-runs?limit=2").json()["nextCursor"]
    (last,) = http.get(f"/flow-runs?limit=1&cursor={cursor}").json()["runs"]
    assert last["id"] == runs[0]


@pytest.mark.parametrize("what", ["summary", "step", "event"])
def test_what_cannot_be_read_is_an_error_that_names_the_run(
    store: Place, http: httpx2.Client, what: str
) -> None:
    by_slug = "/seq/acme/demo/broken"
    run = http.post(f"{by_slug}/jobs", json={}).json()["executionId"]
    wire.events_of(http, run)
    store.spoil(what, run)
    paths = {
        "summary": [f"/flow-runs/{run}/trace", f"{by_slug}/runs/{run}/trace"],
        "step": [f"/flow-runs/{run}/trace", f"/flow-runs/{run}/steps/bad/trace"],
        "event": [f"{by_slug}/jobs/{run}"],
    }
    for path in paths[what]:
        answer = http.get(path)
        assert wire.refusal(answer, run, "export-raw") == (500, "INTERNAL_ERROR")
        assert wire.detail(answer)["executionId"] == run


def test_a_stream_ends_before_an_event_that_cannot_be_read(store: Place, http: httpx2.Client) -> None:
    run = execute(http, "anything")
    store.spoil("event", run)
    answer = http.get(f"/flow-runs/{run}/trace/stream")
    assert (answer.status_code, answer.text) == (200, "retry: 1000\n\n")


def test_a_session_shows_the_other_runs_whole(store: Place, http: httpx2.Client) -> None:
    headers = {"X-Session-Id": str(uuid4())}
    runs = [wire.ran(http, "anything", headers=headers) for _ in range(2)]
    store.spoil("step", runs[0])
    broken, whole = http.get(f"/seq/sessions/{headers['X-Session-Id']}").json()["executions"]
    assert (broken["executionId"], broken["status"], broken["steps"]) == (runs[0], "completed", [])
    assert [step["stepId"] for step in whole["steps"]] == ["keep"]


def test_a_run_with_fractions_of_tokens_is_read_cancelled_and_deleted(
    server: RunningServer, store: Place, http: httpx2.Client
) -> None:
    server.push("slug: fractions\nsteps:\n- {id: ask, type: llm, model: echo, prompt: Hi}")
    run = paused(http, "/seq/acme/demo/fractions/execute", trace=True)["executionId"]
    ((no,),) = store.execute("SELECT no FROM run WHERE id = ?", run)
    for table, column, key in (
        ("run", "summary", "no"),
        ("event", "data", "run_no"),
        ("step", "data", "run_no"),
    ):
        for (data,) in store.execute(f"SELECT {column} FROM {table} WHERE {key} = ?", no):
            halved = re.sub(rb'"(prompt|total)":([0-9]+)', rb'"\1":\2.5', data)
            store.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", halved, data)
    assert run in [each["id"] for each in http.get("/flow-runs?limit=100").json()["runs"]]
    assert http.delete(f"/seq/acme/demo/fractions/runs/{run}").status_code == 202
    assert http.get(f"/flow-runs/{run}").json()["totals"]["tokens"]["prompt"] == 1.5
    reads = ["trace", "trace/stream", "trace/outline", "trace/timeline", f"diff/{run}"]
    for read in [*reads, *(f"export?format={kind}" for kind in ("json", "jsonl", "otlp", "perfetto"))]:
        answer = http.get(f"/flow-runs/{run}/{read}")
        assert answer.status_code == 200, (read, answer.text)
    assert http.delete(f"/seq/acme/demo/fractions/runs/{run}?purge=true").status_code == 202
    assert http.get(f"/flow-runs/{run}").status_code == 404


@pytest.mark.parametrize("what", ["summary", "step"])
def test_a_run_that_cannot_be_read_keeps_no_other_from_being_sent_as_spans(
    server: RunningServer, store: Place, http: httpx2.Client, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.call(server.runtime.store.span_cursors())
    with collecting() as collector:
        # What other tests have left behind goes first.
        send_all(server, collector)
        runs = [execute(http, "anything") for _ in range(3)]
        store.spoil(what, runs[1])
        send_all(server, collector)
        assert [bool(collector.spans(run)) for run in runs] == [True, False, True]
    assert any("not sent on" in line.message and runs[1] in line.message for line in caplog.records)


def held(server: RunningServer, http: httpx2.Client) -> str:
    """A run of `endless` that is in its second step."""
    run = wire.start(server, "endless")
    wire.until_event(http, run, "step_started", nth=2)
    return run


def set_aside(http: httpx2.Client) -> int:
    told = http.get(f"{str(http.base_url).removesuffix('/api/v1/')}/health").json()
    count: int = told.get("setAside", 0)
    reason = f"unreadable, quarantined runs: {count}; the log names them"
    assert (reason in told.get("reasons", [])) == (count > 0)
    return count


def test_runs_that_were_set_aside_are_listed_cancelled_and_deleted(place: Place) -> None:
    with served(*FLOWS, **place.settings) as (server, http):
        runs, others = ({what: held(server, http) for what in UPDATES} for _ in range(2))
    for what in UPDATES:
        place.spoil(what, runs[what])
        place.spoil(what, others[what])
    place.spoil("summary", runs["request"], ODD_TIME % runs["request"].encode())
    with served(*FLOWS, **place.settings) as (server, http):
        eventually(lambda: set_aside(http) == 2 * len(UPDATES))
        with Client(base_url=server.address, api_key=server.key) as client:
            listed = {run.id: run for run in client.runs()}
        assert listed.keys() == {*runs.values(), *others.values()}
        broken = listed[runs["summary"]]
        assert (broken.status, broken.flow_slug, broken.version) == ("running", "endless", 1)
        assert {run.id for run in listed.values() if run.unreadable} == {broken.id, others["summary"]}
        for run in others.values():
            assert http.delete(f"/flow-runs/{run}?purge=true").status_code == 202
        for what, run in runs.items():
            assert http.delete(f"/flow-runs/{run}").json() == {"executionId": run, "status": "cancelled"}
            (ended,) = [each for each in http.get("/flow-runs").json()["runs"] if each["id"] == run]
            assert (ended["status"], ended["flowSlug"]) == ("cancelled", "endless")
            assert ended["completedAt"]
            assert ended.get("unreadable", False) == (what in ("summary", "request", "step"))
            assert wire.refusal(http.delete(f"/flow-runs/{run}")) == (409, "RUN_ENDED")
        assert set_aside(http) == 0
        server.call(server.runtime.removal.tidy())
        for table in ("checkpoint", "run_request", "step WHERE status = 'running'"):
            assert place.execute(f"SELECT count(*) FROM {table}") == [(0,)], table
        last = place.execute("SELECT data FROM event JOIN run ON run_no = no AND seq = head")
        assert [b"flow_cancelled" in data for (data,) in last] == [True] * len(runs)
        events = place.execute("SELECT data FROM event")
        assert sum(b"flow_cancelled" in data for (data,) in events) == len(runs), "nothing comes twice"
        for run in runs.values():
            assert http.delete(f"/flow-runs/{run}?purge=true").status_code == 202
        assert http.get("/flow-runs").json()["runs"] == []
        server.call(server.runtime.removal.tidy())
        for table in ROWS_OF_RUN:
            assert place.execute(f"SELECT count(*) FROM {table}") == [(0,)], table
        assert there(server.call(server.runtime.store.find_project("acme", "demo"))).data_bytes == 0


def test_runs_that_go_on_or_wait_and_whose_rows_were_spoilt_are_cancelled_and_deleted(place: Place) -> None:
    with served(*FLOWS, **place.settings, max_concurrent_runs=1) as (server, http):
        goes_on = held(server, http)
        spoilt = {
            wire.start(server, "endless"): ["summary"],
            wire.start(server, "endless"): ["request"],
            goes_on: ["summary", "request", "checkpoint", "step"],
        }
        for run, rows in spoilt.items():
            for what in rows:
                place.spoil(what, run)
            assert http.delete(f"/flow-runs/{run}").status_code == 202
            assert http.delete(f"/flow-runs/{run}?purge=true").status_code == 202
        assert set_aside(http) == 0


def test_content_of_rows_that_cannot_be_read_goes_with_other_content(place: Place) -> None:
    with served(*FLOWS, **place.settings, capture="full") as (_, http):
        run = execute(http, "anything", parameters={"text": "sesame"})
    for what in ("event", "step", "summary"):
        place.spoil(what, run, b'{"text": "sesame"')
    with served(*FLOWS, **place.settings, content_retention_days=1e-9) as (server, http):
        server.call(server.runtime.removal.tidy())
        (listed,) = http.get("/flow-runs").json()["runs"]
        assert (listed["id"], listed["unreadable"]) == (run, True)
    assert place.execute("SELECT count(*) FROM run WHERE has_content") == [(0,)]
    for what, table in (("data", "event"), ("data", "step"), ("summary", "run")):
        assert not any(b"sesame" in row[0] for row in place.execute(f"SELECT {what} FROM {table}"))
