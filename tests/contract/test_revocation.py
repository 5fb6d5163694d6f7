"""Within a second after a key is revoked, by any process, all open responses to it end."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runglass.api_keys import digest_of
from runglass.cli import main
from runglass.testing import RunningServer, running_server
from tests.contract.test_tool_calls import TALK, TOOLS, results_of, resumption
from tests.contract.wire import (
    ENDLESS,
    cancel,
    detail,
    http_for,
    raw_connection,
    read_answer,
    refusal,
    start,
)

HOLD = "slug: hold\nsteps: [{id: hold, type: wait, ms: 1000}]\n"
LARGE = """
slug: large
steps:
  - id: each
    type: loop
    over: list(range(40))
    steps: [{id: big, type: code, code: 'return {"x": "x" * 200000}'}]
"""
WAIT_S = 20.0
CHECK_S = 1.5

Revoke = Callable[[int], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    with running_server(data=folder, capture="full") as running:
        for flow in (ENDLESS, HOLD, LARGE):
            running.push(flow)
        yield running


@pytest.fixture(params=["over HTTP", "from the terminal"])
def revoke(
    request: pytest.FixtureRequest, folder: Path, http: httpx2.Client, tmp_path: Path, monkeypatch: Any
) -> Revoke:
    """Revokes a key: in the server, or beside it with a connection of its own to the database."""
    if request.param == "over HTTP":

        def over_http(key_id: int) -> None:
            assert http.delete(f"/keys/{key_id}").status_code == 200

        return over_http
    monkeypatch.chdir(tmp_path)

    def from_the_terminal(key_id: int) -> None:
        assert main(["keys", "revoke", "acme/demo", str(key_id), "--data", str(folder)]) == 0

    return from_the_terminal


def made(server: RunningServer) -> tuple[str, int]:
    """A new key, and its id."""
    key = server.make_key("acme", "demo", "run")
    found = server.call(server.runtime.store.find_key(digest_of(key)))
    assert found is not None
    return key, found.id


class Stream:
    """A live trace that is read in a thread of its own."""

    def __init__(self, server: RunningServer, key: str, run: str) -> None:
        self._started = threading.Event()
        self.text = ""
        self.ended_at_s = 0.0
        self._thread = threading.Thread(target=self._read, args=(server, key, run), daemon=True)
        self._thread.start()
        assert self._started.wait(WAIT_S)

    def _read(self, server: RunningServer, key: str, run: str) -> None:
        with http_for(server, key) as http, http.stream("GET", f"/flow-runs/{run}/trace/stream") as answer:
            for part in answer.iter_text():
                self.text += part
                if 'stepId":"hold' in self.text:
                    self._started.set()
        self.ended_at_s = time.monotonic()

    def ended(self, within_s: float) -> bool:
        self._thread.join(within_s)
        return not self._thread.is_alive()


def test_streams_end_without_a_further_event_and_are_not_resumed(
    server: RunningServer, http: httpx2.Client, revoke: Revoke
) -> None:
    run = start(server, "endless")
    (key, key_id), (other, _) = made(server), made(server)
    streams = [Stream(server, key, run) for _ in range(3)]
    stays = Stream(server, other, run)
    before = [stream.text for stream in streams]
    revoke(key_id)
    revoked_at_s = time.monotonic()
    assert all(stream.ended(WAIT_S) for stream in streams)
    # A look each quarter of a second, and much room for a busy machine.
    assert max(stream.ended_at_s for stream in streams) - revoked_at_s < 5
    assert [stream.text for stream in streams] == before
    with http_for(server, key) as left:
        answer = left.get(f"/flow-runs/{run}/trace/stream", headers={"Last-Event-ID": "1"})
        assert refusal(answer) == (401, "UNAUTHENTICATED")
    assert not stays.ended(0.3)
    cancel(server, run)
    assert stays.ended(WAIT_S)
    assert "event: flow_cancelled" in stays.text


def test_a_call_that_waits_is_answered_and_its_run_goes_on(
    server: RunningServer, http: httpx2.Client, revoke: Revoke
) -> None:
    key, key_id = made(server)
    headers = {"Idempotency-Key": f"call of {key_id}"}
    path = "/seq/acme/demo/hold/execute"
    with http_for(server, key) as caller, ThreadPoolExecutor(2) as calls:
        first = calls.submit(caller.post, path, json={}, headers=headers)
        while not (runs := http.get("/flow-runs?flow=hold&status=running").json()["runs"]):
            time.sleep(0.01)
        # It waits for the outcome of the first one.
        again = calls.submit(caller.post, path, json={}, headers=headers)
        time.sleep(0.1)
        revoke(key_id)
        answers = [first.result(WAIT_S), again.result(WAIT_S)]
    run = runs[0]["id"]
    for answer in answers:
        assert refusal(answer) == (401, "UNAUTHENTICATED")
        assert detail(answer)["executionId"] == run
        assert "the run itself goes on" in detail(answer)["message"]
        assert answer.headers["www-authenticate"] == "Bearer"
    assert "event: flow_completed" in http.get(f"/flow-runs/{run}/trace/stream").text
    # That a key ended is nothing that the call came to: another key of the project gets what it did.
    repeated = http.post(path, json={}, headers=headers)
    assert (repeated.status_code, repeated.json()["executionId"]) == (200, run)


def test_a_step_through_ends(server: RunningServer, http: httpx2.Client, revoke: Revoke) -> None:
    key, key_id = made(server)
    with http_for(server, key) as caller, ThreadPoolExecutor(1) as calls:
        body = {"runRemaining": True}
        walk = calls.submit(caller.post, "/seq/acme/demo/endless/step", json=body)
        while not (runs := http.get("/flow-runs?flow=endless&status=running").json()["runs"]):
            time.sleep(0.01)
        revoke(key_id)
        told = walk.result(WAIT_S)
    assert told.status_code == 200
    assert not {"event: step_error", "event: flow_cancelled"} & set(told.text.splitlines())
    assert http.get(f"/flow-runs/{runs[0]['id']}/trace").json()["flowRun"]["status"] == "running"
    cancel(server, runs[0]["id"])


def test_a_large_answer_breaks_off(server: RunningServer, http: httpx2.Client) -> None:
    key, key_id = made(server)
    run = http.post("/seq/acme/demo/large/execute", json={}).json()["executionId"]
    whole = len(http.get(f"/flow-runs/{run}/trace").content)
    parts: list[bytes] = []

    def read(caller: httpx2.Client) -> None:
        with caller.stream("GET", f"/flow-runs/{run}/trace") as answer:
            for part in answer.iter_raw(65536):
                if not parts:
                    http.delete(f"/keys/{key_id}").raise_for_status()
                parts.append(part)

    with http_for(server, key) as caller, pytest.raises(httpx2.RemoteProtocolError):
        read(caller)
    assert 0 < len(b"".join(parts)) < whole


def test_a_resume_in_the_line_leaves_its_run_paused() -> None:
    with (
        running_server(capture="full", max_concurrent_runs=1) as server,
        http_for(server, server.key) as http,
    ):
        server.push(TALK)
        server.push(ENDLESS)
        key, key_id = made(server)
        with http_for(server, key) as caller, ThreadPoolExecutor(1) as calls:
            body = caller.post("/seq/acme/demo/talk/execute", json={"message": "hi", "tools": TOOLS}).json()
            holds = start(server, "endless")
            resume = resumption(body, results_of(body))
            waits = calls.submit(caller.post, "/seq/acme/demo/talk/execute", json=resume)
            while not server.runtime.engine.queue.waiting:
                time.sleep(0.01)
            http.delete(f"/keys/{key_id}")
            answer = waits.result(WAIT_S)
        assert refusal(answer) == (401, "UNAUTHENTICATED")
        assert "the run is paused as before" in detail(answer)["message"]
        cancel(server, holds)
        assert http.post("/seq/acme/demo/talk/execute", json=resume).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/keys", b'{"role": "admin"}'),
        ("/seq/acme/demo/hold/execute", b"{}"),
        ("/seq/acme/demo/hold/jobs", b"{}"),
        ("/seq/acme/demo/hold/step", b"{}"),
    ],
)
def test_a_body_that_ends_after_its_key_was_revoked_does_nothing(
    server: RunningServer, http: httpx2.Client, path: str, body: bytes
) -> None:
    """Who sends slowly would else start a run, or make itself another key, for as long as a body may take."""
    key = server.make_key("acme", "demo", "admin")
    found = server.call(server.runtime.store.find_key(digest_of(key)))
    assert found is not None
    head = f"POST /api/v1{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
    with raw_connection(server) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:1])
        time.sleep(0.3)
        assert http.delete(f"/keys/{found.id}").status_code == 200
        before = keys_and_runs(http)
        connection.sendall(body[1:])
        status, _, told = read_answer(connection)
    assert status == 401
    assert b"UNAUTHENTICATED" in told
    assert keys_and_runs(http) == before


@pytest.fixture
def slow_checks(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that take CHECK_S, as they do where others are before them."""
    check = server.runtime.checks.request

    async def slow(*args: Any, **options: Any) -> Any:
        await asyncio.sleep(CHECK_S)
        return await check(*args, **options)

    monkeypatch.setattr(server.runtime.checks, "request", slow)


@pytest.mark.usefixtures("slow_checks")
@pytest.mark.parametrize("way", ["execute", "jobs", "step"])
def test_a_request_that_was_checked_until_after_its_key_was_revoked_starts_nothing(
    server: RunningServer, http: httpx2.Client, way: str
) -> None:
    key, key_id = made(server)
    with http_for(server, key) as caller, ThreadPoolExecutor(1) as calls:
        call = calls.submit(caller.post, f"/seq/acme/demo/hold/{way}", json={})
        time.sleep(CHECK_S / 3)
        http.delete(f"/keys/{key_id}")
        before = keys_and_runs(http)
        answer = call.result(WAIT_S)
    assert refusal(answer) == (401, "UNAUTHENTICATED")
    assert "while its request was checked; nothing was done" in detail(answer)["message"]
    assert keys_and_runs(http) == before


@pytest.mark.usefixtures("slow_checks")
def test_a_repeated_call_does_not_wait_for_the_first_one_when_its_key_is_revoked(
    server: RunningServer, http: httpx2.Client
) -> None:
    key, key_id = made(server)
    again = {"Idempotency-Key": "both"}
    with http_for(server, key) as caller, ThreadPoolExecutor(2) as calls:
        first = calls.submit(http.post, "/seq/acme/demo/hold/execute", json={}, headers=again)
        time.sleep(CHECK_S / 6)
        repeat = calls.submit(caller.post, "/seq/acme/demo/hold/execute", json={}, headers=again)
        time.sleep(CHECK_S / 6)
        http.delete(f"/keys/{key_id}")
        assert refusal(repeat.result(WAIT_S)) == (401, "UNAUTHENTICATED")
        assert not first.done()
        assert first.result(WAIT_S).json()["status"] == "completed"


def keys_and_runs(http: httpx2.Client) -> tuple[list[int], list[str]]:
    keys, runs = http.get("/keys").json()["keys"], http.get("/flow-runs").json()["runs"]
    return [key["id"] for key in keys], [run["id"] for run in runs]
