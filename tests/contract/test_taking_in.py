"""Large requests are taken in one at a time, and only so many bytes of them wait: whoever sends them.

And starting and stopping: addresses, and what becomes of whoever is connected then.
"""

import asyncio
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import httpx2
import pytest

import runglass
from runglass.config.settings import Settings
from runglass.errors import RunglassError
from runglass.limits.memory import SHARE_OF_PROJECT
from runglass.server import serve
from runglass.testing import RunningServer
from tests.contract import wire
from tests.faulty_store import FaultyStore, Held
from tests.memory import most_memory
from tests.servers import served, server_on, server_with
from tests.waiting import eventually

MEMORY_BYTES = 64 << 20
LARGE = {"parameters": {"text": "x" * 5_000_000}}
FLOW = "slug: given\nsteps: [{id: one, type: code, code: 'return {\"n\": 1}'}]\n"
PATH = "/seq/acme/demo/given"
MEDIUM = {"parameters": {"text": "x" * 500_000}}
MANY = 4


server = server_with(FLOW, wire.ENDLESS, memory_limit_bytes=MEMORY_BYTES)


@pytest.mark.parametrize("way", ["execute", "jobs", "step"])
def test_large_requests_wait_for_each_other_up_to_a_part_of_the_memory(
    server: RunningServer, http: httpx2.Client, checking: Held, way: str
) -> None:
    assert 5_000_000 < MEMORY_BYTES // SHARE_OF_PROJECT < 2 * 5_000_000
    with ThreadPoolExecutor(2) as calls:
        first = calls.submit(http.post, f"{PATH}/{way}", json=LARGE)
        checking.until_reached()
        refused = http.post(f"{PATH}/{way}", json=LARGE)
        small = http.post(f"{PATH}/execute", json={})
        checking.let_go()
        assert first.result().status_code in (200, 202)
    assert small.json()["status"] == "completed", "a small one waits for none"
    assert wire.refusal(refused, "setting memory_limit_bytes", "nothing was started") == (503, "UNAVAILABLE")
    if way == "jobs":
        # A job is answered before its run has ended, which holds the memory until then.
        server.call(server.runtime.engine.active.join(first.result().json()["executionId"]))
    assert http.post(f"{PATH}/{way}", json=LARGE).status_code in (200, 202)


def test_of_large_requests_one_is_checked_at_a_time(server: RunningServer, http: httpx2.Client) -> None:
    going, at_once = [0], list[int]()

    async def counted(*_: Any, **__: Any) -> None:
        going[0] += 1
        at_once.append(going[0])
        await asyncio.to_thread(eventually, lambda: len(asked) == MANY)
        going[0] -= 1

    turns = FaultyStore(server.runtime.engine.limits.large_requests)
    with ThreadPoolExecutor(MANY) as calls, turns, FaultyStore(server.runtime.checks) as checks:
        checks.before("request", counted)
        asked = turns.calls("begin")
        answers = list(calls.map(lambda _: http.post(f"{PATH}/execute", json=MEDIUM), range(MANY)))
    assert [answer.json()["status"] for answer in answers] == ["completed"] * MANY
    assert at_once == [1] * MANY


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "too heavy"}], ids=["plain", "under a key"])
def test_a_body_of_too_many_values_is_refused_before_it_is_decoded(
    http: httpx2.Client, headers: dict[str, str]
) -> None:
    """Decoded it takes twenty times as much memory, and no other thread goes on meanwhile."""
    body = b'{"parameters":{"a":[' + b"[]," * 2_500_000 + b"[]]}}"
    answer, most_bytes = most_memory(partial(http.post, f"{PATH}/execute", content=body, headers=headers))
    assert wire.refusal(answer, "setting body_values_limit") == (422, "INVALID_REQUEST")
    assert most_bytes < 10 * len(body)


def test_the_values_of_a_body_are_held_once_under_a_key_too(http: httpx2.Client) -> None:
    """Its digest decodes the body as well."""
    body = b'{"parameters":{"a":[' + b'["x1"],' * 100_000 + b"[]]}}"
    call = partial(http.post, f"{PATH}/execute", content=body)
    answer, plain = most_memory(call)
    again, under_a_key = most_memory(partial(call, headers={"Idempotency-Key": "weighed once"}))
    assert (answer.status_code, again.status_code) == (200, 200)
    assert under_a_key < 1.8 * plain


def test_nothing_is_sorted_by_the_encoder() -> None:
    """It sorts names in quadratic time, and crashes, where somebody has chosen their order."""
    asking = re.compile(r"""order\s*=\s*["'](sorted|deterministic)""")
    root = Path(runglass.__file__).parent
    assert [path for path in root.rglob("*.py") if asking.search(path.read_text(encoding="utf-8"))] == []


def run_ids(http: httpx2.Client) -> list[str]:
    return [run["id"] for run in http.get("/flow-runs").json()["runs"]]


@pytest.mark.parametrize("way", ["execute", "jobs", "step"])
def test_a_body_whose_caller_leaves_before_its_end_starts_nothing(
    server: RunningServer,
    http: httpx2.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    """What has come of it would be a call. It is no fault of the server, either."""
    before = run_ids(http)
    with wire.half_sent(server, monkeypatch, f"{PATH}/{way}", b"{} "):
        pass
    eventually(lambda: wire.requests_in(server) == 0)
    assert run_ids(http) == before
    assert caplog.records == []


def test_bodies_on_their_way_are_bounded_before_they_are_whole(server: RunningServer) -> None:
    """Each could be sent for hours, and all but its last byte would be in memory so long."""
    body = b'{"message":"' + b"x" * 4_000_000
    head = wire.head_of(server, "POST", f"/api/v1{PATH}/execute", f"Content-Length: {len(body) + 2}")
    least = 12 - MEMORY_BYTES // SHARE_OF_PROJECT // 4_000_000 - 1

    def answered(sender: socket.socket) -> bytes:
        # The server may refuse, and close, while the body is still being sent.
        with suppress(OSError):
            sender.sendall(head + body)
        return sender.recv(4096)

    with ThreadPoolExecutor(12) as threads, ExitStack() as opened:
        senders = [opened.enter_context(wire.raw_connection(server)) for _ in range(12)]
        calls = [threads.submit(answered, sender) for sender in senders]
        answers = eventually(
            lambda: done if len(done := [call for call in calls if call.done()]) >= least else []
        )
        for sender in senders:
            sender.shutdown(socket.SHUT_RDWR)
    refused = [answer.result() for answer in answers]
    assert {answer.split(b"\r\n")[0].split()[1] for answer in refused} == {b"503"}
    assert b"come in or wait to be read" in refused[0]
    with wire.http_for(server, server.key) as http:
        # Nothing of it is held once the server has seen that they left.
        eventually(lambda: http.post(f"{PATH}/execute", json=LARGE).status_code == 200)


@pytest.mark.parametrize("length", ["9" * 5000, "0" * 5000, "99999999999999999999"])
def test_a_length_of_any_number_of_digits_is_answered(server: RunningServer, length: str) -> None:
    with wire.raw_connection(server) as sender:
        sender.sendall(wire.head_of(server, "POST", f"/api/v1{PATH}/execute", f"Content-Length: {length}"))
        status = int(sender.recv(4096).split(b" ")[1])
    assert status in (400, 413)


async def test_work_beside_the_server_that_fails_stops_it(tmp_path: Path) -> None:
    fail = AsyncMock(side_effect=RunglassError("the folder is gone"))
    with pytest.raises(RunglassError, match="the folder is gone"):
        await serve(Settings(port=0, data=tmp_path), ready=lambda _: None, beside=fail)


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1"])
def test_every_kind_of_host_is_listened_on(host: str) -> None:
    with served(host=host) as (_, http):
        assert http.get("/flow-runs").status_code == 200


def test_a_stop_answers_every_call_and_waits_for_no_run_which_goes_on_after_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream and a call are open when the server stops, and requests come in or wait for their turn."""
    stopped = "the server is being stopped; nothing was started"
    with ThreadPoolExecutor(3) as calls, ExitStack() as clients:
        with server_on("sqlite", FLOW, wire.BRISK, data=tmp_path) as server:
            # On its clock no wait ends.
            monkeypatch.setattr(server.runtime.store.clock, "sleep", lambda _: asyncio.Event().wait())
            http = clients.enter_context(wire.http_for(server, server.key))
            run = wire.start(server, "brisk")
            parts = clients.enter_context(http.stream("GET", f"/flow-runs/{run}/trace/stream")).iter_text()
            seen = ""
            while "step_started" not in seen:
                seen += next(parts)
            called = calls.submit(http.post, "/seq/acme/demo/brisk/execute", json={})
            eventually(lambda: wire.requests_in(server) == 2)
            eventually(lambda: len(http.get("/flow-runs?status=running").json()["runs"]) == 2)
            checking = FaultyStore(server.runtime.checks).hold("request")
            asked = FaultyStore(server.runtime.engine.limits.large_requests).calls("begin")
            calls.submit(http.post, f"{PATH}/execute", json=MEDIUM)
            checking.until_reached()
            waits = calls.submit(http.post, f"{PATH}/execute", json=MEDIUM)
            eventually(lambda: len(asked) == 2)
            connection = clients.enter_context(wire.raw_connection(server))
            head = wire.head_of(server, "POST", f"/api/v1{PATH}/execute", "Content-Length: 100")
            connection.sendall(head + b"{")
            eventually(lambda: wire.requests_in(server) == 5)
        assert wire.refusal(waits.result(), stopped) == (503, "UNAVAILABLE")
        status, headers, body = wire.read_answer(connection)
        cut_off = httpx2.Response(status, headers=headers, content=body)
        assert wire.refusal(cut_off, "the server is being stopped") == (503, "UNAVAILABLE")
        answer = called.result(wire.LONGEST_S)
        assert wire.refusal(answer, "the server is stopping") == (500, "INTERNAL_ERROR")
        assert wire.frames(seen + "".join(parts))[-1].event == "step_started"
    with served(data=tmp_path) as (_, http):
        for each in (run, wire.detail(answer)["executionId"]):
            assert wire.events_of(http, each)[-1].event == "flow_completed"
            attempts = http.get(f"/flow-runs/{each}/steps/one/trace?attempt=all").json()["attempts"]
            assert [attempt["status"] for attempt in attempts] == ["failed", "completed"]
            assert attempts[0]["errorContext"]["code"] == "WORKER_LOST"


def test_no_thread_outlives_its_server() -> None:
    before = set(threading.enumerate())
    with served() as (_, http):
        http.get("/flow-runs")
    # One of another test may have ended meanwhile.
    assert set(threading.enumerate()) <= before
