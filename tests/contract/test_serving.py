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
from tests.contract.wire import LONGEST_S, detail, events_of, frames, http_for, refusal, requests_in, start
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


def test_a_stop_answers_every_call_and_waits_for_no_run_which_goes_on_after_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream and a blocking call are open when the server stops; both end well."""
    with ThreadPoolExecutor(1) as calls, ExitStack() as clients:
        with running_server(data=tmp_path) as server:
            # On its clock no wait ends.
            monkeypatch.setattr(server.runtime.store.clock, "sleep", lambda _: asyncio.Event().wait())
            http = clients.enter_context(http_for(server, server.key))
            server.push(WAITS)
            run = start(server, "waits")
            parts = clients.enter_context(http.stream("GET", f"/flow-runs/{run}/trace/stream")).iter_text()
            seen = ""
            while "step_started" not in seen:
                seen += next(parts)
            called = calls.submit(http.post, "/seq/acme/demo/waits/execute", json={})
            eventually(lambda: requests_in(server) == 2)
            eventually(lambda: len(http.get("/flow-runs?status=running").json()["runs"]) == 2)
        answer = called.result(LONGEST_S)
        assert refusal(answer, "the server is stopping") == (500, "INTERNAL_ERROR")
        assert frames(seen + "".join(parts))[-1].event == "step_started"
    with running_server(data=tmp_path) as server, http_for(server, server.key) as http:
        for each in (run, detail(answer)["executionId"]):
            assert events_of(http, each)[-1].event == "flow_completed"
            attempts = http.get(f"/flow-runs/{each}/steps/wait/trace?attempt=all").json()["attempts"]
            assert [attempt["status"] for attempt in attempts] == ["failed", "completed"]
            assert attempts[0]["errorContext"]["code"] == "WORKER_LOST"


def test_no_thread_outlives_its_server() -> None:
    before = set(threading.enumerate())
    with running_server() as server, http_for(server, server.key) as http:
        http.get("/flow-runs")
    # One of another test may have ended meanwhile.
    assert set(threading.enumerate()) <= before
