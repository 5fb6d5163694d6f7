"""More calls than runs that go on at once: jobs queue, others wait in line, and a full line is 503."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract import wire
from tests.contract.test_tool_calls import TALK, paused, results_of, resumption
from tests.servers import server_with
from tests.waiting import eventually

BASE = "/seq/acme/demo"
OFF = "slug: off\ncapture: 'off'\nsteps: [{id: keep, type: passthrough}]\n"


server = server_with(
    wire.ANYTHING, wire.ENDLESS, OFF, TALK, capture="full", max_concurrent_runs=1, max_queued_runs=3
)


def until_waiting(server: RunningServer, count: int) -> None:
    eventually(lambda: wire.waiting_in(server) == count)


def hold(server: RunningServer) -> str:
    """Starts the run that has the only slot. The run before it may give that back after its answer."""
    holder = wire.start(server, "endless")
    until_waiting(server, 0)
    return holder


def test_jobs_queue_and_begin_when_there_is_a_place(server: RunningServer, http: httpx2.Client) -> None:
    before = len(http.get("/flow-runs").json()["runs"])
    holder = hold(server)

    def queue(number: int) -> httpx2.Response:
        once = {"Idempotency-Key": f"job {number}"}
        return http.post(f"{BASE}/anything/jobs", json={"parameters": {"n": number}}, headers=once)

    jobs, repeats = ([queue(number) for number in range(3)] for _ in range(2))
    assert [job.status_code for job in jobs] == [202] * 3
    assert [repeat.content for repeat in repeats] == [job.content for job in jobs], "none waits for its run"
    ids = [job.json()["executionId"] for job in jobs]
    assert [http.get(f"{BASE}/anything/jobs/{run}").json()["status"] for run in ids] == ["pending"] * 3
    assert wire.trace_of(http, ids[0])["flowRun"]["status"] == "pending"

    full = http.post(f"{BASE}/anything/jobs", json={}, headers={"Idempotency-Key": "beyond"})
    assert wire.refusal(full, "nothing was started") == (503, "UNAVAILABLE")
    assert int(full.headers["retry-after"]) >= 1
    assert len(http.get("/flow-runs").json()["runs"]) == before + 4

    assert http.delete(f"/flow-runs/{ids[1]}").status_code == 202
    assert wire.types(wire.events_of(http, ids[1])) == ["run_started", "run_input", "flow_cancelled"]
    assert wire.trace_of(http, ids[1])["flowRun"]["inputPreview"] == '{"n":1}'
    assert http.get(f"{BASE}/anything/jobs/{ids[1]}").json()["error"] == "cancelled"

    assert http.delete(f"/flow-runs/{holder}").status_code == 202
    for run in (ids[0], ids[2]):
        wire.events_of(http, run)
        assert http.get(f"{BASE}/anything/jobs/{run}").json()["status"] == "completed"
    again = http.post(f"{BASE}/anything/jobs", json={}, headers={"Idempotency-Key": "beyond"})
    assert again.status_code == 202


@pytest.mark.parametrize("slug", ["anything", "off"])
def test_execute_and_step_wait_in_the_queue_and_get_their_answers_or_that_their_run_was_cancelled(
    server: RunningServer, http: httpx2.Client, slug: str
) -> None:
    holder = hold(server)
    with ThreadPoolExecutor(3) as threads:
        refused = threads.submit(http.post, f"{BASE}/{slug}/execute", json={})
        until_waiting(server, 1)
        (cancelled,) = http.get("/flow-runs?status=pending").json()["runs"]
        assert http.delete(f"/flow-runs/{cancelled['id']}").status_code == 202
        assert wire.refusal(refused.result()) == (500, "STEP_FAILED")
        assert wire.detail(refused.result())["executionId"] == cancelled["id"]
        until_waiting(server, 0)
        executed = threads.submit(http.post, f"{BASE}/{slug}/execute", json={"parameters": {"n": 1}})
        until_waiting(server, 1)
        stepped = threads.submit(http.post, f"{BASE}/{slug}/v1/step", json={"parameters": {"n": 2}})
        until_waiting(server, 2)
        assert http.delete(f"/flow-runs/{holder}").status_code == 202
        assert executed.result().json()["result"] == {"n": 1}
        events = wire.frames(stepped.result().text)
    assert events[-1].event == "flow_completed"
    assert [event.data["output"] for event in events if event.event == "step_completed"] == [{"n": 2}]


def test_a_large_tool_result_that_waits_for_a_place_lets_the_next_call_in(
    server: RunningServer, http: httpx2.Client
) -> None:
    waits, text = paused(http), "y" * 500_000
    results = [result | {"content": text} for result in results_of(waits)]
    holder = hold(server)
    with ThreadPoolExecutor(1) as calls:
        waiting = calls.submit(http.post, f"{BASE}/talk/execute", json=resumption(waits, results))
        until_waiting(server, 1)
        job = http.post(f"{BASE}/anything/jobs", json={"parameters": {"text": text}})
        assert job.status_code == 202
        assert not waiting.done()
        wire.cancel(server, holder)
        assert waiting.result().json()["status"] == "completed"


def test_calls_that_wait_for_a_place_hold_nothing_of_their_bodies(
    server: RunningServer, http: httpx2.Client
) -> None:
    body, holder = b'{"message":"%s"}' % (b"x" * 9_000_000), hold(server)
    with ThreadPoolExecutor(3) as calls, ExitStack() as stack:
        for count in (1, 2, 3):
            calls.submit(http.post, f"{BASE}/anything/execute", content=body)
            until_waiting(server, count)
            if count == 1:
                tracemalloc.start()
                stack.callback(tracemalloc.stop)
                before, _ = tracemalloc.get_traced_memory()
        # Two have come since. What has begun to wait lets go of its body within a moment.
        eventually(lambda: tracemalloc.get_traced_memory()[0] - before < 1.5 * len(body))
        wire.cancel(server, holder)
