"""Large requests are taken in one at a time, and only so many bytes of them wait: whoever sends them."""

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

import runglass
from runglass.server.calls import _in_order
from runglass.server.taking_in import SHARE
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


def test_who_waits_is_told_when_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert msgspec.json.encode(_in_order(value)) == wanted
