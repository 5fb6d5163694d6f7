"""What a program pays for the client before its first call, and up to the first answer."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.children import ROOT, BenchError, environment
from bench.measuring import Side, side_by_side
from bench.raw import KeptConnection, request
from bench.rows import Goal, Row
from bench.stage import PEER_PYTHON, Stage

PEER = "openai"
READY = "import sys; from runglass import Client; client = Client(sys.argv[1], base_url=sys.argv[2])"
FIRST_CALL = f"{READY}; client.run(sys.argv[3]).trace()"
PEER_READY = "import sys; from openai import OpenAI; OpenAI(api_key=sys.argv[1], base_url=sys.argv[2])"
LEAST_CALL = """
import sys, http.client, msgspec
connection = http.client.HTTPConnection(sys.argv[1])
connection.request("GET", "/trace")
msgspec.json.decode(connection.getresponse().read())
"""


def rows(stage: Stage) -> Iterator[Row]:
    sides: dict[str, Side] = {
        "ours": lambda: _cpu_ms(sys.executable, "import runglass"),
        "limit": lambda: _cpu_ms(sys.executable, "import msgspec"),
    }
    if stage.has_peers:
        sides[PEER] = lambda: _cpu_ms(PEER_PYTHON, "import openai")
    imported = side_by_side(sides, rounds=stage.sizes.rounds)
    yield Row(
        figure="import runglass, CPU of the whole process",
        unit="ms",
        ours=imported["ours"],
        limit=imported["limit"],
        peers={PEER: imported.get(PEER, ())},
        goal=Goal(at=40, of_limit=1.54),
        note="the limit imports msgspec alone",
    )
    yield from _calls(stage)


def _calls(stage: Stage) -> Iterator[Row]:
    data, base_url = stage.data, stage.client_address
    with ExitStack() as stack:
        connection = KeptConnection(stage.server.address)
        stack.callback(connection.close)
        body = connection.get(request(f"/api/v1/flow-runs/{data.small}/trace", data.key))
        bare = stack.enter_context(stage.bare(trace=body))
        sides: dict[str, Side] = {
            "ready": lambda: _wall_ms(sys.executable, READY, data.key, base_url),
            "ours": lambda: _wall_ms(sys.executable, FIRST_CALL, data.key, base_url, data.small),
            "limit": lambda: _wall_ms(sys.executable, LEAST_CALL, bare.address.removeprefix("http://")),
        }
        if stage.has_peers:
            sides[PEER] = lambda: _wall_ms(PEER_PYTHON, PEER_READY, data.key, base_url)
        found = side_by_side(sides, rounds=stage.sizes.rounds)
    yield Row(
        figure="a process imports and makes a client, until it has ended",
        unit="ms",
        ours=found["ready"],
        peers={PEER: found.get(PEER, ())},
        goal=Goal(at=150),
    )
    yield Row(
        figure=f"the same, and it reads a {stage.sizes.small_trace_steps}-step trace",
        unit="ms",
        ours=found["ours"],
        limit=found["limit"],
        goal=Goal(at=150),
        note="the limit is http.client and msgspec against bare uvicorn",
    )


def _cpu_ms(python: str | Path, code: str) -> float:
    """CPU time of a process that runs this code, that of the system included."""
    process = subprocess.Popen([python, "-c", code], env=environment(), cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"{code!r} ended with {process.returncode}")
    return (usage.ru_utime + usage.ru_stime) * 1000


def _wall_ms(python: str | Path, code: str, *arguments: str) -> float:
    began_s = time.perf_counter()
    subprocess.run([python, "-c", code, *arguments], env=environment(), cwd=ROOT, check=True)
    return (time.perf_counter() - began_s) * 1000
