"""Runs whose rows cannot be decoded are listed, cancelled and deleted, on each kind of store."""

import asyncio
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx2
import pytest

from runglass.client import Client
from runglass.store.run_tables import ROWS_OF_RUN
from runglass.testing import RunningServer, running_server
from tests.contract.wire import ANYTHING, ENDLESS, execute, http_for, refusal, start
from tests.postgres_server import postgres_database
from tests.unit.engine.test_unreadable import UPDATES
from tests.waiting import eventually

GARBAGE = b"\xff{garbage"
TORN = bytes(4096)


class Place(NamedTuple):
    """A store that servers of a test have one after the other; statements reach it past them."""

    settings: dict[str, Any]

    def execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, with a question mark for each value."""
        if (address := self.settings.get("store")) is None:
            with closing(sqlite3.connect(self.settings["data"] / "runglass.db")) as database, database:
                return database.execute(sql, values).fetchall()

        async def told() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(address)
            try:
                first, *parts = sql.split("?")
                numbered = first + "".join(f"${number}{part}" for number, part in enumerate(parts, 1))
                return [tuple(row) for row in await connection.fetch(numbered, *values)]
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, told()).result()

    def spoil(self, what: str, run: str, data: bytes) -> None:
        self.execute(UPDATES[what], data, run)


@pytest.fixture
def place(store_kind: str, tmp_path: Path) -> Iterator[Place]:
    if store_kind == "sqlite":
        yield Place({"data": tmp_path})
        return
    with postgres_database() as address:
        yield Place({"store": address})


@contextmanager
def served(place: Place, **settings: Any) -> Iterator[tuple[RunningServer, httpx2.Client]]:
    with running_server(**place.settings, **settings) as server, http_for(server, server.key) as http:
        for flow in (ANYTHING, ENDLESS):
            server.push(flow)
        yield server, http


def held(server: RunningServer, http: httpx2.Client) -> str:
    """A run of `endless` that is in its second step."""
    run = start(server, "endless")
    eventually(lambda: b'"hold"' in http.get(f"/flow-runs/{run}/trace").content)
    return run


def set_aside(http: httpx2.Client) -> int:
    told = http.get(f"{str(http.base_url).removesuffix('/api/v1/')}/health").json()
    count: int = told.get("setAside", 0)
    reason = f"unreadable, quarantined runs: {count}; the log names them"
    assert (reason in told.get("reasons", [])) == (count > 0)
    return count


def test_runs_that_were_set_aside_are_listed_cancelled_and_deleted(place: Place) -> None:
    with served(place) as (server, http):
        runs = {what: held(server, http) for what in UPDATES}
    for what, run in runs.items():
        place.spoil(what, run, GARBAGE)
    with served(place) as (server, http):
        eventually(lambda: set_aside(http) == len(runs))
        with Client(base_url=server.address, api_key=server.key) as client:
            listed = {run.id: run for run in client.runs()}
        assert listed.keys() == set(runs.values())
        broken = listed[runs["summary"]]
        assert (broken.status, broken.flow_slug, broken.version) == ("running", "endless", 1)
        assert {run.id for run in listed.values() if run.unreadable} == {broken.id}
        for what, run in runs.items():
            if what in ("summary", "request"):
                assert http.delete(f"/flow-runs/{run}").json() == {"executionId": run, "status": "cancelled"}
                (ended,) = [each for each in http.get("/flow-runs").json()["runs"] if each["id"] == run]
                assert ended["status"] == "cancelled"
                assert (ended["flowSlug"], bool(ended["completedAt"])) == ("endless", True)
                assert ended.get("unreadable", False) == (what == "summary")
                assert refusal(http.delete(f"/flow-runs/{run}")) == (409, "RUN_ENDED")
            assert http.delete(f"/flow-runs/{run}?purge=true").status_code == 202
        assert set_aside(http) == 0
        assert http.get("/flow-runs").json()["runs"] == []
        server.call(server.runtime.removal.tidy())
        for table in ROWS_OF_RUN:
            assert place.execute(f"SELECT count(*) FROM {table}") == [(0,)], table
        project = server.call(server.runtime.store.find_project("acme", "demo"))
        assert project is not None
        assert project.data_bytes == 0


def test_a_run_that_was_set_aside_goes_when_its_retention_is_over(place: Place) -> None:
    with served(place) as (server, http):
        run = held(server, http)
    place.spoil("summary", run, TORN)
    with served(place, retention_days=1e-9) as (_, http):
        eventually(lambda: http.get(f"/flow-runs/{run}/trace").status_code == 404)
        eventually(lambda: set_aside(http) == 0)


def test_runs_that_go_on_or_wait_and_whose_rows_were_spoilt_are_cancelled_and_deleted(place: Place) -> None:
    with served(place, max_concurrent_runs=1) as (server, http):
        goes_on = held(server, http)
        spoilt = {
            start(server, "endless"): ["summary"],
            start(server, "endless"): ["request"],
            goes_on: ["summary", "request", "checkpoint", "step"],
        }
        for run, rows in spoilt.items():
            for what in rows:
                place.spoil(what, run, GARBAGE)
            assert http.delete(f"/flow-runs/{run}").status_code == 202
            assert http.delete(f"/flow-runs/{run}?purge=true").status_code == 202
        assert set_aside(http) == 0


def test_content_of_rows_that_cannot_be_read_goes_with_other_content(place: Place) -> None:
    with served(place, capture="full") as (_, http):
        run = execute(http, "anything", parameters={"text": "sesame"})
    for what in ("event", "step", "summary"):
        place.spoil(what, run, b'{"text": "sesame"')
    with served(place, content_retention_days=1e-9) as (server, http):
        server.call(server.runtime.removal.tidy())
        (listed,) = http.get("/flow-runs").json()["runs"]
        assert (listed["id"], listed["unreadable"]) == (run, True)
    assert place.execute("SELECT count(*) FROM run WHERE has_content") == [(0,)]
    for what, table in (("data", "event"), ("data", "step"), ("summary", "run")):
        assert not any(b"sesame" in row[0] for row in place.execute(f"SELECT {what} FROM {table}"))
