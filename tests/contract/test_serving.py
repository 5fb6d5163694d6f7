"""Starting and stopping: addresses, signals, and what becomes of whoever is connected then."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.request import urlopen

import httpx2
import pytest

from runglass.config.settings import Settings
from runglass.errors import RunglassError
from runglass.runtime.runtime import Runtime
from runglass.server import serve
from runglass.testing import RunningServer, running_server
from tests.contract.wire import (
    ENDLESS,
    detail,
    frames,
    http_for,
    start,
)
from tests.waiting import eventually

WAITS = """
slug: waits
steps: [{id: wait, type: wait, ms: 1}]
"""
PROGRAM = """
import asyncio, sys
from pathlib import Path
from runglass.server import new_event_loop, serve
from runglass.config.settings import Settings
settings = Settings(port=0, data=Path(sys.argv[1]))
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(serve(settings, ready=lambda url: print("ready", url, flush=True)))
print("clean end")
"""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(tmp_path: Path, stop: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        word, url = process.stdout.readline().split()
        assert word == "ready"
        with urlopen(f"{url}/health", timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(stop)
        assert process.stdout.read() == "clean end\n"
        assert process.wait(60) == 0


async def test_work_beside_the_server_runs_with_it_and_a_signal_ends_both(tmp_path: Path) -> None:
    seen: list[str] = []

    async def beside(runtime: Runtime) -> None:
        assert await runtime.store.projects() == []
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("beside ended")

    await serve(Settings(port=0, data=tmp_path), ready=seen.append, beside=beside)
    assert seen[0].startswith("http://127.0.0.1:")
    assert seen[1:] == ["beside ended"]


async def test_work_beside_the_server_that_fails_stops_it(tmp_path: Path) -> None:
    async def fail(_: Runtime) -> None:
        raise RunglassError("the folder is gone")

    with pytest.raises(RunglassError, match="the folder is gone"):
        await serve(Settings(port=0, data=tmp_path), ready=lambda _: None, beside=fail)


def test_an_address_in_use_is_a_clear_error() -> None:
    with running_server() as server:
        port = int(server.address.rpartition(":")[2])
        with (
            pytest.raises(RunglassError, match=rf"cannot listen on 127\.0\.0\.1:{port}"),
            running_server(port=port),
        ):
            raise AssertionError("it started")


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1"])
def test_every_kind_of_host_is_listened_on(host: str) -> None:
    with running_server(host=host) as server, http_for(server, server.key) as http:
        assert http.get("/flow-runs").status_code == 200


def test_a_stop_waits_for_no_run_and_answers_every_call() -> None:
    """A stream and a blocking call are open when the server stops; both end well."""
    answers: dict[str, httpx2.Response] = {}
    flowing = threading.Event()

    def call(server: RunningServer) -> None:
        with http_for(server, server.key) as http:
            answers["execute"] = http.post("/seq/acme/demo/endless/execute", json={})

    def follow(server: RunningServer, run: str) -> None:
        with (
            http_for(server, server.key) as http,
            http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream,
        ):
            text = ""
            for chunk in stream.iter_text():
                text += chunk
                flowing.set()
            answers["stream"] = httpx2.Response(200, text=text)

    with running_server() as server, http_for(server, server.key) as http:
        server.push(ENDLESS)
        followed = start(server, "endless")
        threads = [
            threading.Thread(target=call, args=(server,)),
            threading.Thread(target=follow, args=(server, followed)),
        ]
        for thread in threads:
            thread.start()
        flowing.wait()
        eventually(lambda: len(http.get("/flow-runs?status=running").json()["runs"]) == 2)
    for thread in threads:
        thread.join()
        assert not thread.is_alive()
    assert answers["execute"].status_code == 500
    assert "the server is stopping" in detail(answers["execute"])["message"]
    assert "executionId" in detail(answers["execute"])
    assert frames(answers["stream"].text)[0].event == "run_started"


def test_a_run_that_is_stopped_in_the_middle_goes_on_after_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server(data=tmp_path, stop_grace_s=0) as server:
        # On its clock no wait ends.
        monkeypatch.setattr(server.runtime.store.clock, "sleep", lambda _: asyncio.Event().wait())
        server.push(WAITS)
        run = start(server, "waits")
        with http_for(server, server.key) as http:
            eventually(lambda: http.get(f"/flow-runs/{run}/trace").json()["steps"])
    with running_server(data=tmp_path) as server, http_for(server, server.key) as http:
        with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
            events = [frame.event for frame in frames(stream.read().decode())]
        assert events[-1] == "flow_completed"
        attempts = http.get(f"/flow-runs/{run}/steps/wait/trace?attempt=all").json()["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["failed", "completed"]
    assert attempts[0]["errorContext"]["code"] == "WORKER_LOST"


def test_no_thread_outlives_its_server() -> None:
    before = set(threading.enumerate())
    with running_server() as server, http_for(server, server.key) as http:
        http.get("/flow-runs")
    assert set(threading.enumerate()) == before
