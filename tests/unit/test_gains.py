"""Gains in speed that must not be lost, told by counts and never by times.

Also what starting a program, a client or the server must not load.
"""

import asyncio
import re
import sqlite3
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runglass import Client, Run
from runglass.client.core.connection import PLAIN
from runglass.client.transport import blocking, checked, verification
from runglass.client.transport.blocking import SyncTransport
from runglass.server.http.exchange import JoiningTransport
from runglass.store.records import Append
from runglass.store.sqlite.append import write_append
from runglass.store.sqlite.worker_threads import WorkerThreads
from runglass.testing import RunningServer
from runglass.wire.sse import Decoder, frames
from tests.contract.wire import execute, http_for
from tests.faulty_store import FaultyStore
from tests.memory import most_memory
from tests.servers import server_with
from tests.unit.client.scripted import ScriptedServer, answers
from tests.unit.client.sides import RUN, Side
from tests.unit.engine.conftest import open_harness


async def test_the_thousandth_iteration_costs_what_the_first_did(tmp_path: Path) -> None:
    sizes: list[int] = []

    def measure(batch: Append) -> None:
        kept = (each.data for each in batch.checkpoints if not each.step_id.endswith("?"))
        parts = (*batch.events, *(row.data for row in batch.steps), batch.summary, *kept)
        sizes.append(sum(map(len, parts)))

    flow = "- {id: l, type: loop, over: 'list(range(1200))', steps: [{id: s, type: passthrough}]}"
    async with open_harness(tmp_path / "db") as house:
        FaultyStore(house.store).before("append", measure)
        await (await house.start(flow, {}, capture="metadata_only")).outcome()
    assert max(sizes[1000:1100]) <= 1.1 * max(sizes[50:150]), "bytes to the store per step do not grow"


STEPS = 50
FLOW = "\n".join(f"- {{id: s{number}, type: passthrough}}" for number in range(STEPS))


async def test_a_step_in_the_middle_of_a_run_costs_one_append_of_few_statements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's row without its indexes, two events, two states of steps, one checkpoint.

    The end of a step travels with the start of the next one; without that it would be two appends.
    """
    statements: list[list[str]] = []

    def watched(db: sqlite3.Connection, batch: Append) -> None:
        statements.append([])
        db.set_trace_callback(statements[-1].append)
        write_append(db, batch)
        db.set_trace_callback(None)

    monkeypatch.setattr("runglass.store.sqlite.store.write_append", watched)
    async with open_harness(tmp_path / "db") as house:
        appends = FaultyStore(house.store).calls("append")
        outcome = await (await house.start(FLOW, {"n": 1}, capture="metadata_only")).outcome()
        assert outcome.status == "completed"
        (move,) = [text for text in statements[STEPS // 2] if text.startswith("UPDATE run")]
        work = await house.store.connections.write(lambda db: db.execute(f"EXPLAIN {move}").fetchall())
    assert sum(row[1] == "OpenWrite" for row in work) == 1, "no index of the run's row is written anew"
    assert len(appends) <= STEPS + 5
    assert sum(len(call.args[0].steps) for call in appends) <= 2 * STEPS + 5
    assert max(map(len, statements[5 : STEPS - 5])) <= 6


def test_a_large_frame_is_held_twice_at_most() -> None:
    """Once as it comes in and once as it goes out, with some room to grow."""
    size = 4 << 20
    stream = frames([(1, "step_output", b'{"text":"%b"}' % (b"x" * size))])
    chunks = [stream[at : at + (16 << 10)] for at in range(0, len(stream), 16 << 10)]
    decoder = Decoder()
    found, most_bytes = most_memory(lambda: [frame for chunk in chunks for frame in decoder.feed(chunk)])
    assert len(found) == 1
    assert len(found[0].data) > size
    assert most_bytes < 2.4 * size


def test_a_body_is_not_kept_in_parts_and_joined(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HTTP library's own way of reading one has it in memory twice."""
    refuse = Mock(side_effect=AssertionError("the library was asked to join the parts of the body"))
    monkeypatch.setattr(httpx2.Response, "read", refuse)
    monkeypatch.setattr(httpx2.Response, "aread", refuse)
    trace = {"flowRun": {"id": RUN, "flowId": "f", "status": "completed"}, "steps": []}
    with ScriptedServer() as server:
        server.plays(answers(trace, chunked=True))
        assert side.value(side.client(server.url).run(RUN).trace()).flow_run.id == RUN


server = server_with("slug: f\nsteps: [{id: s, type: passthrough}]")


def test_a_small_trace_is_one_hand_over_and_one_write(
    server: RunningServer, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further hand-over would cost a quarter of the whole request."""
    put, make = WorkerThreads.put, JoiningTransport.__init__
    readers: list[str] = []
    transports: list[Mock] = []

    def counted_put(lane: WorkerThreads, work: Any) -> Any:
        readers.append(f"{lane.name} for {asyncio.current_task()}")
        return put(lane, work)

    def over_counted(joining: JoiningTransport, transport: asyncio.Transport) -> None:
        transports.append(Mock(wraps=transport))
        make(joining, transports[-1])

    run_id = execute(http, "f")
    # On a connection of its own, which is counted from its start on.
    with http_for(server, server.key) as client:
        monkeypatch.setattr(WorkerThreads, "put", counted_put)
        monkeypatch.setattr(JoiningTransport, "__init__", over_counted)
        answer = client.get(f"/flow-runs/{run_id}/trace")
    assert answer.json()["steps"][0]["stepId"] == "s"
    # Tasks of the server in the background read as well.
    assert len([each for each in readers if "writer" not in each and "run_forever" not in each]) == 1, readers
    assert [transport.write.call_count for transport in transports] == [1]


def loaded(code: str, *packages: str) -> set[str]:
    """Which of the packages a fresh interpreter has loaded after this code."""
    code = f"{code}; import sys; print(*({set(packages)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


START = """
import asyncio, gc
from pathlib import Path
from typing import Any
from runglass.cli import main

folder = Path({folder!r})
code = main(["serve", "--port", "0", "--data", str(folder), "--flows", str(folder / "missing")])
from runglass.runtime.composition import open_runtime
from runglass.server import create_app
from runglass.config.settings import Settings

async def build():
    async with open_runtime(Settings(data=folder)) as runtime:
        create_app(runtime)

asyncio.run(build())
assert (code, gc.isenabled(), gc.get_freeze_count() > 10_000) == (2, True, True)"""


def test_the_server_starts_without_the_libraries_that_only_a_request_or_a_client_needs(
    tmp_path: Path,
) -> None:
    """The command ends with code 2, because its folder of flows is missing: after all that it imports."""
    heavy = ("pydantic", "pydantic_ai", "openai", "httpx2", "genai_prices", "pydantic_monty", "ruamel.yaml")
    assert loaded(START.format(folder=str(tmp_path)), *heavy) == set()


def test_no_library_of_a_provider_is_loaded_before_it_is_needed() -> None:
    assert loaded("import runglass.engine.models.gateway", "pydantic_ai", "openai") == set()


def test_an_unused_blocking_client_loads_no_http_and_a_used_one_never_what_needs_asyncio() -> None:
    libraries = ("httpx2", "httpcore2", "h11", "anyio", "ssl", "asyncio")
    assert loaded("import runglass", "msgspec", "typing", *libraries) == set()
    code = "from runglass import Client, Trace; client = Client('nk_x', base_url='http://127.0.0.1:9')"
    assert loaded(f"{code}; client.close(); repr(client)", *libraries) == set()
    code += "; client.run('r'); client.flow('a/b/c')"
    theirs = {"asyncio", "runglass.client.aio.client", "runglass.client.transport.on_asyncio"}
    assert loaded(code, "httpx2", *theirs) == {"httpx2"}


def test_a_command_on_a_data_folder_waits_for_no_http_library(tmp_path: Path) -> None:
    at = f"'--data', {str(tmp_path)!r}"
    code = f"from runglass.cli import main; main(['projects', 'create', 'a/b', {at}]); "
    code += f"main(['runs', 'show', 'last', {at}])"
    assert loaded(code, "httpx2", "starlette") == {"starlette"}, "the server is there"


def test_an_asyncio_client_has_nothing_left_to_load_on_the_loop() -> None:
    code = (
        "from runglass import AsyncClient; import sys; before = set(sys.modules)\n"
        "client = AsyncClient('nk_x', base_url='http://127.0.0.1:9'); client.run('r'); client.flow('a/b/c')\n"
        "late = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert not late & {'runglass', 'httpx2', 'httpcore2', 'h11', 'asyncio'}, late"
    )
    assert loaded(code, "httpx2") == {"httpx2"}


def test_a_plain_address_reads_no_certificates() -> None:
    context = verification("http://localhost:8080/api/v1")
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED, "it trusts nobody rather than everybody"
    assert context.cert_store_stats()["x509"] == 0
    assert verification("https://host/api/v1") is True


@settings(max_examples=50, deadline=None)
@given(st.from_regex(PLAIN, fullmatch=True))
def test_plain_urls_are_valid_to_the_library(url: str) -> None:
    assert checked(url[:1000])


def test_a_client_closed_before_it_was_used_is_closed() -> None:
    client = Client("nk_x", base_url="http://127.0.0.1:9")
    client.close()
    with pytest.raises(RuntimeError, match=re.escape("the client has been closed")):
        client.run("r").trace()


def test_threads_that_begin_at_once_share_one_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    client, together = Client("nk_x", base_url="http://127.0.0.1:9"), threading.Barrier(8)
    transport = Mock(wraps=SyncTransport)
    monkeypatch.setattr(blocking, "SyncTransport", transport)

    def begin(_: int) -> Run:
        together.wait()
        return client.run("r")

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(begin, range(8)))) == 8
    client.close()
    assert transport.call_count == 1
