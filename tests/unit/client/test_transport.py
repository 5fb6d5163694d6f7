"""Calls over a real socket: what goes out, what is tried again, and that the wall clock holds.

At the end, a client that is closed by another thread or task: whatever it waited for ends at once.
"""

import asyncio
import math
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from unittest.mock import Mock

import httpcore2
import pytest

from runglass import (
    APIConnectionError,
    APITimeoutError,
    AsyncClient,
    Client,
    FlowExecutionError,
    Trace,
    __version__,
)
from runglass.client.core.responses import Deadline
from runglass.client.transport.blocking import SyncTransport
from runglass.client.transport.blocking_sockets import DeadlineBackend
from tests.ports import free_port
from tests.unit.client.scripted import (
    CHUNKED,
    DRIPPING,
    LAST_CHUNK,
    RESULT,
    Exchange,
    Mute,
    Scene,
    ScriptedServer,
    answers,
    drips,
    flow,
    hangs_up,
    in_chunk,
    refuses,
    resets,
    sends,
    waits,
)
from tests.unit.client.sides import KEY, PASSED_S, RUN, Side

TRACE = {
    "flowRun": {"id": RUN, "flowId": "f", "status": "completed"},
    "steps": [{"stepId": "s1", "inputContext": {"text": "é" * 50_000}, "costUsd": "0.000045"}],
}
BOUND_S = 0.2


def times_out(within_s: float = BOUND_S, *, also: str = "$") -> pytest.RaisesExc[APITimeoutError]:
    """The bound is kept by a server that would go on for minutes."""
    return pytest.raises(APITimeoutError, match=f"took longer than its timeout of {within_s:g} s{also}")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_trace_comes_whole(server: ScriptedServer, side: Side, chunked: bool) -> None:
    server.plays(answers(TRACE, chunked=chunked))
    trace = side.value(side.client(server.url).flow("acme/school/grade-3").run(RUN).trace())
    assert isinstance(trace, Trace)
    assert trace.steps[0].input_context == {"text": "é" * 50_000}
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", f"/api/v1/seq/acme/school/grade-3/runs/{RUN}/trace")
    assert request.headers["authorization"] == "Bearer nk_test"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"] == f"runglass/{__version__}"


LOST = {
    "502": answers(b"<html>", status=502),
    "no answer": hangs_up,
    "broken off": sends(b'{"flowRun":', {"content-length": "1000"}),
    "reset": resets(),
}


@pytest.mark.parametrize("scene", LOST.values(), ids=LOST)
def test_a_call_is_tried_again_under_one_key_where_it_may_have_started(
    server: ScriptedServer, side: Side, scene: Scene
) -> None:
    server.plays(scene, answers(RESULT))
    assert side.value(flow(side, server).execute()).execution_id == RUN
    first, again = server.requests
    assert len(side.waits) == 1
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert first.body == again.body
    server.plays(scene)
    with pytest.raises((APIConnectionError, FlowExecutionError)) as caught:
        side.value(side.client(server.url, max_retries=0).flow("a/p/s").execute())
    if isinstance(caught.value, APIConnectionError):
        assert "the run may have continued all the same" in str(caught.value)


def test_a_server_that_is_not_there_is_tried_and_named(side: Side) -> None:
    url = f"http://127.0.0.1:{free_port()}/api/v1"
    with pytest.raises(APIConnectionError, match=f"after 3 attempts: {url} cannot be reached") as caught:
        side.value(side.client(url).flow("a/p/s").execute())
    assert len(side.waits) == 2
    assert caught.value.__cause__ is not None
    assert "may have continued" not in str(caught.value)


def test_connections_are_kept_for_the_next_call(server: ScriptedServer, side: Side) -> None:
    server.plays(answers(TRACE))
    run = side.client(server.url).run(RUN)
    for _ in range(3):
        side.value(run.trace())
    assert len({id(request.connection) for request in server.requests}) == 1


FORKS = """
import os, sys
from runglass import Client

with Client("nk_test", base_url=sys.argv[1]) as client:
    run = client.run(sys.argv[2])
    run.summary()
    if child := os.fork():
        os.waitpid(child, 0)
    run.summary()
if not (child := os.fork()):
    try:
        run.summary()
    except RuntimeError:
        os._exit(3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_that_is_forked_reads_no_answer_to_its_parent(server: ScriptedServer) -> None:
    server.plays(answers(TRACE["flowRun"]))
    done = subprocess.run([sys.executable, "-c", FORKS, server.url, RUN], timeout=60, check=False)
    assert done.returncode == 3, "one that was closed stays closed"
    first, of_child, of_parent = (request.connection for request in server.requests)
    assert first is of_parent is not of_child


RUNS_TWICE = """
import asyncio, sys
from runglass import AsyncClient

client = AsyncClient("nk_test", base_url=sys.argv[1])

async def ask():
    return (await client.run(sys.argv[2]).summary()).status

async def ask_beside():
    try:
        await asyncio.to_thread(asyncio.run, ask())
    except RuntimeError as error:
        return str(error)

async def last():
    print(await ask(), await ask(), await ask_beside())
    await client.aclose()

asyncio.run(ask())
asyncio.run(last())
client = AsyncClient("nk_test", base_url=sys.argv[1])
asyncio.run(ask())
asyncio.run(client.aclose())
"""


def test_an_asyncio_client_is_used_again_once_its_event_loop_has_closed(server: ScriptedServer) -> None:
    server.plays(answers(TRACE["flowRun"]), refuses(503, "UNAVAILABLE"), answers(TRACE["flowRun"]))
    command = [sys.executable, "-c", RUNS_TWICE, server.url, RUN]
    done = subprocess.run(command, timeout=60, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("completed completed this client has connections on another event loop")
    of_first, _, *of_second, _ = (request.connection for request in server.requests)
    assert of_first not in of_second
    assert len(of_second) == 2


SLOW = {
    **DRIPPING,
    "no answer": waits(),
    "body": drips(b" " * 5000, {"content-length": "5000"}),
    "chunks": drips(in_chunk(b" ") * 1000 + LAST_CHUNK, CHUNKED),
    "interim answers": drips(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200),
}


@pytest.mark.parametrize("scene", SLOW.values(), ids=SLOW)
def test_the_wall_clock_bounds_a_call_whatever_the_server_does(
    server: ScriptedServer, side: Side, scene: Scene
) -> None:
    server.plays(scene)
    run = side.client(server.url).run(RUN)
    with times_out():
        side.value(run.trace(timeout=BOUND_S))
    assert side.waits == [], "it is not tried again"


def test_the_wall_clock_bounds_an_upload_that_nobody_reads_and_the_run_may_go_on(
    server: ScriptedServer, side: Side
) -> None:
    async def reads_nothing(exchange: Exchange) -> None:
        await exchange.connection.wait_closed()

    server.plays(reads_nothing)
    with times_out(also="; the run may still be active"):
        side.value(flow(side, server).execute(message="x" * 40_000_000, timeout=BOUND_S))


def test_a_bound_can_be_lifted_for_one_call(server: ScriptedServer, side: Side) -> None:
    async def answers_late(exchange: Exchange) -> None:
        assert not await exchange.hung_up(within_s=0.1)
        await answers(TRACE)(exchange)

    server.plays(answers_late)
    run = side.client(server.url, timeout=PASSED_S, max_retries=0).run(RUN)
    # The last of them overflows where a socket counts 32 bits of milliseconds.
    for endless in (math.inf, sys.maxsize, 2**32 / 1000 + 0.05):
        assert side.value(run.trace(timeout=endless)).flow_run.id == RUN
    with times_out(PASSED_S):
        side.value(run.trace())


def test_retries_share_the_bound_and_the_true_cause_is_raised_at_once(
    server: ScriptedServer, side: Side
) -> None:
    server.plays(refuses(503, "UNAVAILABLE", headers={"Retry-After": "60"}))
    with pytest.raises(FlowExecutionError, match="UNAVAILABLE"):
        side.value(side.client(server.url).run(RUN).trace(timeout=60))
    assert (len(server.requests), side.waits) == (1, [])


def test_a_proxy_from_the_environment_is_used_and_bounded(
    server: ScriptedServer, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    server.plays(answers(TRACE), DRIPPING["headers"])
    run = side.client("http://runglass.invalid/api/v1").run(RUN)
    side.value(run.trace())
    assert server.requests[0].target == f"http://runglass.invalid/api/v1/flow-runs/{RUN}/trace"
    with times_out():
        side.value(run.trace(timeout=BOUND_S))


def test_the_wall_clock_bounds_name_resolution(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hangs(*args: object, **kwargs: object) -> list[object]:
        released.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    run = side.client("http://runglass.invalid/api/v1").run(RUN)
    try:
        with times_out():
            side.value(run.trace(timeout=BOUND_S))
    finally:
        released.set()


def two(host: object, port: int, *args: object, **kwargs: object) -> list[object]:
    """A name with two addresses."""
    return [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")
    ]


async def test_on_asyncio_an_address_that_swallows_holds_up_no_other(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.plays(answers(TRACE))
    monkeypatch.setattr(socket, "getaddrinfo", two)
    with ExitStack() as sockets:
        # It takes no more connections and does not say so.
        full = sockets.enter_context(socket.create_server(("127.0.0.2", server.port), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with AsyncClient(KEY, base_url=f"http://localhost:{server.port}", max_retries=0) as client:
            assert (await client.run(RUN).trace(timeout=60)).flow_run.id == RUN


def test_a_blocking_call_gives_each_address_its_share_of_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    swallows = Mock(httpcore2.NetworkBackend)
    swallows.connect_tcp.side_effect = httpcore2.ConnectTimeout
    monkeypatch.setattr(socket, "getaddrinfo", two)
    with pytest.raises(httpcore2.ConnectTimeout):
        DeadlineBackend(swallows).connect_tcp("localhost", 80, timeout=Deadline(8.0, now=lambda: 0.0))
    given = [(call.args[0], call.kwargs["timeout"]) for call in swallows.connect_tcp.mock_calls]
    assert given == [("127.0.0.2", 4.0), ("127.0.0.1", 8.0)]


def test_a_name_that_does_not_exist_is_a_connection_error(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=unknown))
    run = side.client("http://runglass.invalid/api/v1", max_retries=0).run(RUN)
    with pytest.raises(APIConnectionError, match=r"cannot be reached: .*not known"):
        side.value(run.trace())


AT_ONCE_S = 30.0
"""Before the 45 s after which a silent stream is given up."""


def closed_while(client: Client, ask: Callable[[], object], begun: threading.Event) -> None:
    """Closes the client while a thread asks something of it, which ends at once."""
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(ask)
        assert begun.wait(AT_ONCE_S)
        client.close()
        with pytest.raises(RuntimeError, match="the client has been closed"):
            asking.result(AT_ONCE_S)


@pytest.mark.parametrize("opens", [0, 1])
@pytest.mark.parametrize("asked", ["trace", "live_trace"])
def test_a_closed_client_waits_for_nothing(server: ScriptedServer, opens: int, asked: str) -> None:
    """Whatever its thread waited for: the head of an answer, or the rest of it."""
    mute = Mute(opens=opens)
    server.plays(mute)
    client = Client(KEY, base_url=server.url)
    run = client.run(RUN)
    closed_while(client, lambda: run.trace() if asked == "trace" else list(run.live_trace()), mute.asked)
    assert mute.left.wait(AT_ONCE_S)
    with pytest.raises(RuntimeError, match="the client has been closed"):
        run.trace()


@pytest.mark.parametrize("opens", [0, 1])
@pytest.mark.parametrize("asked", ["trace", "live_trace"])
async def test_a_closed_async_client_waits_for_nothing(
    server: ScriptedServer, opens: int, asked: str
) -> None:
    mute = Mute(opens=opens)
    server.plays(mute)
    client = AsyncClient(KEY, base_url=server.url)
    run = client.run(RUN)
    asking = asyncio.ensure_future(anext(run.live_trace()) if asked == "live_trace" else run.trace())
    assert await asyncio.to_thread(mute.asked.wait, AT_ONCE_S)
    await client.aclose()
    with pytest.raises(RuntimeError, match="the client has been closed"):
        await asyncio.wait_for(asking, AT_ONCE_S)
    assert await asyncio.to_thread(mute.left.wait, AT_ONCE_S)


def test_a_closed_client_does_not_wait_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose server is away sleeps between two attempts; closing the client wakes it."""
    client = Client(KEY, base_url=f"http://127.0.0.1:{free_port()}", max_retries=100)
    slept = threading.Event()
    sleep = SyncTransport.sleep

    def sleeping(transport: SyncTransport, seconds: float) -> None:
        slept.set()
        sleep(transport, math.inf)

    monkeypatch.setattr(SyncTransport, "sleep", sleeping)
    closed_while(client, lambda: list(client.run(RUN).live_trace()), slept)
