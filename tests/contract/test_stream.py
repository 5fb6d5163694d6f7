"""`GET …/trace/stream`: replay, live tail, resume, pings and the end, over a real socket."""

import asyncio
import json

import httpx2
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.wire import (
    ENDLESS,
    LONGEST_S,
    cancel,
    detail,
    execute,
    frames,
    head_of,
    http_for,
    raw_connection,
    refusal,
    requests_in,
    start,
)
from tests.waiting import eventually

FORMS = ["/flow-runs/{}", "/seq/acme/demo/words/runs/{}"]


@pytest.fixture(scope="module")
def words(http: httpx2.Client) -> str:
    return execute(http, "words", message="a b")


@pytest.fixture(params=FORMS)
def path(request: pytest.FixtureRequest, words: str) -> str:
    form: str = request.param
    return form.format(words) + "/trace/stream"


def test_a_finished_run_is_replayed_from_the_first_event_to_the_last(
    http: httpx2.Client, path: str, words: str
) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    assert answer.headers["x-request-id"]
    assert "content-length" not in answer.headers
    found = frames(answer.text)
    assert [int(frame.id) for frame in found] == list(range(1, len(found) + 1))
    for frame in found:
        assert list(frame.data)[:4] == ["eventType", "executionId", "seq", "at"]
        assert frame.data["eventType"] == frame.event
        assert frame.data["executionId"] == words
        assert str(frame.data["seq"]) == frame.id
        assert frame.data["at"].endswith("Z")
    assert [frame.event for frame in found[:1] + found[-1:]] == ["run_started", "flow_completed"]


FIELDS = {
    "run_started": {"runId", "flowId", "stepCount", "triggerType", "version"},
    "run_input": {"inputs", "inputSizeBytes", "truncated"},
    "step_started": {"stepId", "stepIndex", "attempt"},
    "step_input": {"stepId", "inputData"},
    "step_progress": {"stepId", "attempt", "text"},
    "step_model_call": {"stepId", "attempt", "modelCall"},
    "step_output": {"stepId", "outputData", "outputContext"},
    "step_completed": {"stepId", "stepIndex", "attempt", "output", "durationMs"},
    "step_retrying": {"stepId", "attempt", "error", "nextAttempt", "delayMs"},
    "step_error": {"stepId", "attempt", "error"},
    "step_skipped": {"stepId", "reason"},
    "loop_started": {"stepId", "iterations", "stepIds"},
    "loop_completed": {"stepId", "iterations"},
    "flow_completed": {"runId", "result", "summary"},
    "flow_failed": {"runId", "error", "stepId"},
    "flow_cancelled": {"runId", "reason"},
}
"""The fields that each event of these runs has; what there is none of is left out."""


def test_every_event_has_the_fields_of_the_contract(server: RunningServer, http: httpx2.Client) -> None:
    broken = detail(http.post("/seq/acme/demo/broken/execute", json={}))["executionId"]
    cancelled = start(server, "endless")
    cancel(server, cancelled)
    seen = set()
    for run in (execute(http, "words", message="a b"), broken, cancelled):
        for frame in frames(http.get(f"/flow-runs/{run}/trace/stream").text):
            assert set(frame.data) >= FIELDS[frame.event], frame.event
            assert None not in frame.data.values(), frame.event
            seen.add(frame.event)
    assert seen == set(FIELDS)


def test_a_stream_resumes_after_every_seq(http: httpx2.Client, path: str) -> None:
    """The header wins over the query, and an empty one is none."""
    whole = frames(http.get(path).text)
    for seq in range(len(whole) + 1):
        by_header = http.get(f"{path}?after=1", headers={"Last-Event-ID": str(seq)}).text
        assert [frame.id for frame in frames(by_header)] == [frame.id for frame in whole[seq:]]
        assert http.get(path, params={"after": seq}, headers={"Last-Event-ID": ""}).text == by_header


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "1 2", "9" * 19])
def test_a_bad_resume_point_is_refused_by_name(http: httpx2.Client, path: str, value: str) -> None:
    answer = http.get(path, headers={"Last-Event-ID": value})
    assert refusal(answer, "`Last-Event-ID`") == (422, "INVALID_REQUEST")


def test_resuming_after_a_seq_beyond_the_head_is_refused(server: RunningServer, http: httpx2.Client) -> None:
    run = start(server, "endless")
    answer = http.get(f"/flow-runs/{run}/trace/stream", headers={"Last-Event-ID": "1000"})
    cancel(server, run)
    assert refusal(answer) == (422, "INVALID_REQUEST")
    frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    ended = http.get(f"/flow-runs/{run}/trace/stream", headers={"Last-Event-ID": "1000"})
    assert refusal(ended) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize("form", ["/flow-runs/{}", "/seq/acme/demo/endless/runs/{}"])
def test_events_arrive_while_the_run_goes_on_and_the_stream_ends_with_it(
    server: RunningServer, http: httpx2.Client, form: str
) -> None:
    run = start(server, "endless")
    received = ""
    with http.stream("GET", form.format(run) + "/trace/stream") as stream:
        for chunk in stream.iter_text():
            received += chunk
            if '"stepId":"hold"' in received and "flow_cancelled" not in received:
                assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"]["status"] == "running"
                cancel(server, run)
    found = frames(received)
    assert found[-1].event == "flow_cancelled"
    assert [int(frame.id) for frame in found] == list(range(1, len(found) + 1))


def test_many_tails_of_one_run_get_the_same_bytes(server: RunningServer) -> None:
    async def all_tails() -> list[str]:
        run = start(server, "brisk")
        headers = {"Authorization": f"Bearer {server.key}"}
        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(
            base_url=server.base_url, headers=headers, limits=limits, timeout=LONGEST_S
        ) as client:
            path = f"/flow-runs/{run}/trace/stream"
            return [answer.text for answer in await asyncio.gather(*[client.get(path) for _ in range(50)])]

    tails = asyncio.run(all_tails())
    assert len(set(tails)) == 1
    assert frames(tails[0])[-1].event == "flow_completed"


def test_silence_is_filled_with_pings() -> None:
    with running_server(ping_s=0.05) as server, http_for(server, server.key) as http:
        server.push(ENDLESS)
        run = start(server, "endless")
        received = ""
        with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
            for chunk in stream.iter_text():
                received += chunk
                if received.rpartition('"hold"')[2].count(": ping\n\n") == 4:
                    break
        assert received.startswith("retry: 1000\n\n")
        assert frames(received)[-1].data["stepId"] == "hold"


def test_a_client_that_leaves_is_noticed_while_the_run_goes_on(server: RunningServer) -> None:
    run = start(server, "endless")
    eventually(lambda: requests_in(server) == 0)
    with raw_connection(server) as connection:
        connection.sendall(head_of(server, "GET", f"/api/v1/flow-runs/{run}/trace/stream"))
        eventually(lambda: requests_in(server) == 1)
    eventually(lambda: requests_in(server) == 0)
    cancel(server, run)


def test_a_head_request_does_not_follow_the_run(server: RunningServer, http: httpx2.Client) -> None:
    run = start(server, "endless")
    answer = http.head(f"/flow-runs/{run}/trace/stream")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.content == b""
    cancel(server, run)


def test_a_reader_that_does_not_read_does_not_delay_others(
    server: RunningServer, http: httpx2.Client
) -> None:
    """One client opens a stream larger than any socket buffer and never reads; another reads it all."""
    server.push("""
slug: large
steps:
  - id: each
    type: loop
    over: list(range(20))
    steps: [{id: copy, type: passthrough, input: {text: "{{ initial.text }}"}}]
""")
    run = execute(http, "large", parameters={"text": "x" * 250_000})
    with raw_connection(server) as connection:
        connection.sendall(head_of(server, "GET", f"/api/v1/flow-runs/{run}/trace/stream"))
        text = http.get(f"/flow-runs/{run}/trace/stream").text
        assert frames(text)[-1].event == "flow_completed"
        assert len(text) > 8_000_000
        assert http.get(f"/flow-runs/{run}/trace").status_code == 200


def test_data_is_one_line_whatever_is_in_it(http: httpx2.Client) -> None:
    odd = "one\ntwo\r\nthree\u2028four\x00\t: ping\n\nid: 9"
    run = execute(http, "anything", parameters={"text": odd})
    found = frames(http.get(f"/flow-runs/{run}/trace/stream").content.decode())
    assert [f.data["inputData"] for f in found if f.event == "step_input"] == [{"text": odd}]
    assert json.loads(http.get(f"/flow-runs/{run}/trace").content)["steps"][0]["outputContext"] == {
        "text": odd
    }
