"""Large requests are taken in one at a time, and only so many bytes of them wait: whoever sends them."""

import asyncio
import re
import socket
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

import runglass
from runglass.server.requests.idempotency_key import sorted_members
from runglass.server.services.request_admission import SHARE
from runglass.testing import RunningServer, running_server
from tests.contract.wire import detail, http_for, refusal

MEMORY_BYTES = 64 << 20
LARGE = {"parameters": {"text": "x" * 5_000_000}}
CHECK_S = 1.0
FLOW = "slug: given\nsteps: [{id: one, type: code, code: 'return {\"n\": 1}'}]\n"
PATH = "/seq/acme/demo/given"


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server(memory_limit_bytes=MEMORY_BYTES) as running:
        running.push(FLOW)
        yield running


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.key) as client:
        yield client


@pytest.fixture
def at_once(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return slow_checks(server, monkeypatch)


def slow_checks(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, *, check_s: float = CHECK_S
) -> list[int]:
    """How many requests were checked at the same time, at each check."""
    check, going, seen = server.runtime.checks.request, [0], list[int]()

    async def slow(*args: Any, **options: Any) -> Any:
        going[0] += 1
        seen.append(going[0])
        await asyncio.sleep(check_s)
        going[0] -= 1
        return await check(*args, **options)

    monkeypatch.setattr(server.runtime.checks, "request", slow)
    return seen


@pytest.mark.parametrize("way", ["execute", "jobs", "step"])
def test_large_requests_wait_for_each_other_up_to_a_part_of_the_memory(
    server: RunningServer, http: httpx2.Client, at_once: list[int], way: str
) -> None:
    assert 5_000_000 < MEMORY_BYTES // SHARE // 2 < 2 * 5_000_000
    with ThreadPoolExecutor(2) as calls:
        first = calls.submit(http.post, f"{PATH}/{way}", json=LARGE)
        time.sleep(CHECK_S / 2)
        refused = http.post(f"{PATH}/{way}", json=LARGE)
        assert not first.done()
        small = http.post(f"{PATH}/execute", json={})
        assert first.result().status_code in (200, 202)
    assert small.json()["status"] == "completed", "a small one waits for none"
    assert refusal(refused) == (503, "UNAVAILABLE")
    assert "setting memory_limit_bytes" in detail(refused)["message"]
    assert "nothing was started" in detail(refused)["message"]
    assert http.post(f"{PATH}/{way}", json=LARGE).status_code in (200, 202)


def test_only_the_wait_for_a_run_lets_the_next_one_in(
    server: RunningServer, http: httpx2.Client, at_once: list[int]
) -> None:
    medium = {"parameters": {"text": "x" * 500_000}}
    with ThreadPoolExecutor(4) as calls:
        answers = list(calls.map(lambda _: http.post(f"{PATH}/execute", json=medium), range(4)))
    assert [answer.json()["status"] for answer in answers] == ["completed"] * 4
    assert at_once == [1] * 4


def test_a_request_that_waits_for_its_turn_is_answered_when_the_server_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    medium = {"parameters": {"text": "x" * 500_000}}
    with ThreadPoolExecutor(2) as calls, ExitStack() as clients:
        with running_server() as server:
            http = clients.enter_context(http_for(server, server.key))
            server.push(FLOW)
            slow_checks(server, monkeypatch, check_s=4 * CHECK_S)
            calls.submit(http.post, f"{PATH}/execute", json=medium)
            time.sleep(CHECK_S / 4)
            waits = calls.submit(http.post, f"{PATH}/execute", json=medium)
            time.sleep(CHECK_S / 4)
        answer = waits.result()
        assert refusal(answer) == (503, "UNAVAILABLE")
        assert "the server is being stopped; nothing was started" in detail(answer)["message"]


def test_nothing_is_sorted_by_the_encoder() -> None:
    """It sorts names in quadratic time, and crashes, where somebody has chosen their order."""
    asking = re.compile(r"""order\s*=\s*["'](sorted|deterministic)""")
    root = Path(runglass.__file__).parent
    assert [path for path in root.rglob("*.py") if asking.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        1,
        {"b": [{"d": 1, "c": {"é": 1, "z": 2, "Z": 3}}], "a": {}, "\x00": [[{"2": 1, "10": 2}]]},
    ],
)
def test_the_order_of_names_makes_no_difference(value: Any) -> None:
    wanted = msgspec.json.encode(value, order="sorted")
    assert msgspec.json.encode(sorted_members(value)) == wanted


SLOW = "slug: slow\nsteps: [{id: nap, type: wait, ms: 3000}]\n"
MEDIUM = {"parameters": {"text": "x" * 500_000}}


def test_a_repeat_that_waits_for_a_run_lets_the_next_one_in(
    server: RunningServer, http: httpx2.Client
) -> None:
    server.push(SLOW)
    once = {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(2) as calls:
        both = [
            calls.submit(http.post, "/seq/acme/demo/slow/execute", json=MEDIUM, headers=once)
            for _ in range(2)
        ]
        time.sleep(0.5)
        began_s = time.monotonic()
        assert http.post(f"{PATH}/execute", json=MEDIUM).json()["status"] == "completed"
        assert time.monotonic() - began_s < 1.0
        first, second = (call.result().json()["executionId"] for call in both)
    assert first == second


def test_a_large_tool_result_that_waits_for_a_place_lets_the_next_one_in() -> None:
    asking = "slug: asking\nsteps: [{id: ask, type: llm, model: echo, prompt: hi}]\n"
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    with running_server(max_concurrent_runs_per_project=1) as server, http_for(server, server.key) as http:
        for flow in (FLOW, SLOW, asking):
            server.push(flow)
        paused = http.post("/seq/acme/demo/asking/execute", json={"tools": [tool]}).json()
        call_id = paused["toolCalls"][0]["id"]
        message = {"role": "tool", "tool_call_id": call_id, "content": "y" * 500_000}
        resume = {"executionId": paused["executionId"], "toolCallMessages": [message]}
        with ThreadPoolExecutor(2) as calls:
            first = calls.submit(http.post, "/seq/acme/demo/slow/execute", json={})
            time.sleep(0.3)
            waiting = calls.submit(http.post, "/seq/acme/demo/asking/execute", json=resume)
            time.sleep(0.3)
            began_s = time.monotonic()
            assert http.post(f"{PATH}/jobs", json=MEDIUM).status_code == 202
            assert time.monotonic() - began_s < 1.0
            assert not waiting.done()
            assert [call.result().json()["status"] for call in (first, waiting)] == ["completed"] * 2


def test_jobs_at_once_under_one_key_are_answered_before_the_run_has_ended(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.push(SLOW)
    answer_call = server.runtime.store.answer_call

    async def late(*args: Any, **options: Any) -> None:
        await asyncio.sleep(0.5)
        await answer_call(*args, **options)

    monkeypatch.setattr(server.runtime.store, "answer_call", late)
    path, once = "/seq/acme/demo/slow/jobs", {"Idempotency-Key": "once"}
    began_s = time.monotonic()
    with ThreadPoolExecutor(6) as calls:
        answers = list(calls.map(lambda _: http.post(path, json={}, headers=once), range(6)))
    assert time.monotonic() - began_s < 2.5
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["executionId"] for answer in answers}) == 1


def test_calls_that_wait_for_a_place_hold_nothing_of_their_bodies() -> None:
    body = msgspec.json.encode({"parameters": {"text": "x" * 9_000_000}})
    many = 8
    settings = {"max_concurrent_runs_per_project": 1, "memory_limit_bytes": 256 << 20}
    with running_server(**settings) as server, http_for(server, server.key) as http, ExitStack() as stack:
        server.push(FLOW)
        server.push("slug: slow\nsteps: [{id: nap, type: wait, ms: 15000}]\n")
        http.post("/seq/acme/demo/slow/jobs", json={})
        calls = stack.enter_context(ThreadPoolExecutor(many))
        sent: list[Future[httpx2.Response]] = []

        def send_one() -> None:
            """Returns when its run waits for a place."""
            sent.append(calls.submit(http.post, f"{PATH}/execute", content=body))
            while len(http.get("/flow-runs", params={"status": "pending"}).json()["runs"]) < len(sent):
                assert not sent[-1].done(), sent[-1].result().text
                time.sleep(0.05)

        send_one()
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(many - 1):
            send_one()
        time.sleep(0.5)
        after, _ = tracemalloc.get_traced_memory()
        assert not any(call.done() for call in sent)
        assert (after - before) / (many - 1) < len(body) / 2
        for run in http.get("/flow-runs").json()["runs"]:
            http.delete(f"/flow-runs/{run['id']}")


def test_a_body_that_is_cut_off_by_the_end_of_the_server_is_answered() -> None:
    with running_server() as server:
        server.push(FLOW)
        host, port = server.address.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=30)
        head = f"POST /api/v1{PATH}/execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.3)
    with connection:
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 503")
    assert '"UNAVAILABLE"' in answer
    assert "the server is being stopped" in answer


def test_bodies_on_their_way_are_bounded_before_they_are_whole(server: RunningServer) -> None:
    """Each could be sent for hours, and all but its last byte would be in memory so long."""
    body = b'{"message":"' + b"x" * 4_000_000
    head = (
        "POST /api/v1/seq/acme/demo/given/execute HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {server.key}\r\n"
        f"Content-Length: {len(body) + 2}\r\n\r\n"
    ).encode()
    host, port = server.address.removeprefix("http://").split(":")
    answers: list[bytes] = []
    with ExitStack() as opened:
        senders = [
            opened.enter_context(socket.create_connection((host, int(port)), timeout=10)) for _ in range(12)
        ]
        for sender in senders:
            # The server may refuse, and close, while the body is still being sent.
            with suppress(OSError):
                sender.sendall(head + body)
        for sender in senders:
            sender.settimeout(1.0)
            with suppress(OSError):
                answers.append(sender.recv(4096))
        refused = [answer for answer in answers if b" 503 " in answer.split(b"\r\n")[0]]
        assert len(refused) >= 12 - MEMORY_BYTES // SHARE // 2 // 4_000_000 - 1
        assert b"come in or wait to be read" in refused[0]
    with http_for(server, server.key) as http:
        assert http.post(f"{PATH}/execute", json=LARGE).status_code == 200, "nothing of it is held"


@pytest.mark.parametrize("length", ["9" * 5000, "0" * 5000, "99999999999999999999"])
def test_a_length_of_any_number_of_digits_is_answered(server: RunningServer, length: str) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    head = (
        "POST /api/v1/seq/acme/demo/given/execute HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: Bearer {server.key}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as sender:
        sender.sendall(head.encode())
        status = int(sender.recv(4096).split(b" ")[1])
    assert status in (400, 413)
