"""Starting and stopping: addresses, and what becomes of whoever is connected then."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from runglass.config.settings import Settings
from runglass.errors import RunglassError
from runglass.runtime.runtime import Runtime
from runglass.server import serve
from runglass.testing import running_server
from tests.contract.wire import ENDLESS, LONGEST_S, detail, frames, http_for, refusal, requests_in, start
from tests.waiting import eventually

WAITS = """
slug: waits
steps: [{id: wait, type: wait, ms: 1}]
"""


async def test_work_beside_the_server_that_fails_stops_it(tmp_path: Path) -> None:
    async def fail(_: Runtime) -> None:
        raise RunglassError("the folder is gone")

    with pytest.raises(RunglassError, match="the folder is gone"):
        await serve(Settings(port=0, data=tmp_path), ready=lambda _: None, beside=fail)


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::1"])
def test_every_kind_of_host_is_listened_on(host: str) -> None:
    with running_server(host=host) as server, http_for(server, server.key) as http:
        assert http.get("/flow-runs").status_code == 200


def test_a_stop_waits_for_no_run_and_answers_every_call() -> None:
    """A stream and a blocking call are open when the server stops; both end well."""
    with ThreadPoolExecutor(1) as calls, ExitStack() as clients:
        with running_server() as server:
            http = clients.enter_context(http_for(server, server.key))
            server.push(ENDLESS)
            path = f"/flow-runs/{start(server, 'endless')}/trace/stream"
            called = calls.submit(http.post, "/seq/acme/demo/endless/execute", json={})
            parts = clients.enter_context(http.stream("GET", path)).iter_text()
            seen = ""
            while "\n\n" not in seen.partition("run_started")[2]:
                seen += next(parts)
            eventually(lambda: requests_in(server) == 2)
            eventually(lambda: len(http.get("/flow-runs?status=running").json()["runs"]) == 2)
        answer = called.result(LONGEST_S)
        assert refusal(answer, "the server is stopping") == (500, "INTERNAL_ERROR")
        assert "executionId" in detail(answer)
        assert frames(seen + "".join(parts))[0].event == "run_started"


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
    # One of another test may have ended meanwhile.
    assert set(threading.enumerate()) <= before
