"""The streams of a run and of the list of runs: replay, live tail, resume, pings and the end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract import wire
from tests.servers import server_with
from tests.waiting import eventually

server = server_with(*wire.FLOWS, capture="full", ping_s=0.1)


def test_a_finished_run_is_replayed_from_the_first_event_to_the_last(
    http: httpx2.Client, base: str, words: str
) -> None:
    answer = http.get(f"{base}/trace/stream")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
    assert answer.headers["x-request-id"]
    assert "content-length" not in answer.headers
    found = wire.frames(answer.text)
    assert [int(frame.id) for frame in found] == list(range(1, len(found) + 1))
    for frame in found:
        assert list(frame.data)[:4] == ["eventType", "executionId", "seq", "at"]
        assert frame.data["eventType"] == frame.event
        assert frame.data["executionId"] == words
        assert str(frame.data["seq"]) == frame.id
        assert frame.data["at"].endswith("Z")
    assert [frame.event for frame in found[:1] + found[-1:]] == ["run_started", "flow_completed"]


OPTIONAL = {
    "run_input": {"inputs", "inputSizeBytes", "truncated"},
    "step_input": {"inputData"},
    "step_output": {"outputData", "outputContext"},
    "step_completed": {"output"},
    "flow_completed": {"result", "summary"},
    "flow_failed": {"stepId"},
}
"""What the events of these runs have of what their types let them lack; what there is none of is left out."""


def test_every_event_has_the_fields_of_the_contract(server: RunningServer, http: httpx2.Client) -> None:
    broken = wire.detail(http.post("/seq/acme/demo/broken/execute", json={}))["executionId"]
    cancelled = wire.start(server, "endless")
    wire.cancel(server, cancelled)
    seen = set()
    for run in (wire.execute(http, "words", message="a b"), broken, cancelled):
        for frame in wire.events_of(http, run):
            assert set(frame.data) >= OPTIONAL.get(frame.event, set()), frame.event
            assert None not in frame.data.values(), frame.event
            seen.add(frame.event)
    assert seen >= set(OPTIONAL)


def test_a_stream_resumes_after_every_seq(http: httpx2.Client, base: str) -> None:
    """The header wins over the query, and an empty one is none."""
    path = f"{base}/trace/stream"
    whole = wire.frames(http.get(path).text)
    for seq in range(len(whole) + 1):
        by_header = http.get(f"{path}?after=1", headers={"Last-Event-ID": str(seq)}).text
        assert [(frame.id, frame.data) for frame in wire.frames(by_header)] == [
            (frame.id, frame.data) for frame in whole[seq:]
        ]
        assert http.get(path, params={"after": seq}, headers={"Last-Event-ID": ""}).text == by_header


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "1 2", "9" * 19])
def test_a_bad_resume_point_is_refused_by_name(http: httpx2.Client, base: str, value: str) -> None:
    answer = http.get(f"{base}/trace/stream", headers={"Last-Event-ID": value})
    assert wire.refusal(answer, "`Last-Event-ID`") == (422, "INVALID_REQUEST")


def test_resuming_after_a_seq_beyond_the_head_is_refused(server: RunningServer, http: httpx2.Client) -> None:
    run = wire.start(server, "endless")
    answer = http.get(f"/flow-runs/{run}/trace/stream", headers={"Last-Event-ID": "1000"})
    wire.cancel(server, run)
    assert wire.refusal(answer) == (422, "INVALID_REQUEST")
    wire.events_of(http, run)
    ended = http.get(f"/flow-runs/{run}/trace/stream", headers={"Last-Event-ID": "1000"})
    assert wire.refusal(ended) == (422, "INVALID_REQUEST")


def test_many_tails_of_one_run_get_the_same_bytes(server: RunningServer, http: httpx2.Client) -> None:
    run = wire.start(server, "brisk")
    with ThreadPoolExecutor(50) as readers:
        answers = list(readers.map(http.get, [f"/flow-runs/{run}/trace/stream"] * 50))
    (tail,) = {answer.text.replace(": ping\n\n", "") for answer in answers}
    assert wire.frames(tail)[-1].event == "flow_completed"


def test_silence_is_filled_with_pings(server: RunningServer, http: httpx2.Client) -> None:
    run, received = wire.start(server, "endless"), ""
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        parts = stream.iter_text()
        while received.rpartition('"hold"')[2].count(": ping\n\n") < 4:
            received += next(parts)
    wire.cancel(server, run)
    assert received.startswith("retry: 1000\n\n")
    assert wire.frames(received)[-1].data["stepId"] == "hold"


def test_a_client_that_leaves_is_noticed_while_the_run_goes_on(server: RunningServer) -> None:
    run = wire.start(server, "endless")
    eventually(lambda: wire.requests_in(server) == 0)
    with wire.raw_connection(server) as connection:
        connection.sendall(wire.head_of(server, "GET", f"/api/v1/flow-runs/{run}/trace/stream"))
        eventually(lambda: wire.requests_in(server) == 1)
    eventually(lambda: wire.requests_in(server) == 0)
    wire.cancel(server, run)


def test_a_head_request_does_not_follow_the_run(server: RunningServer, http: httpx2.Client) -> None:
    run = wire.start(server, "endless")
    answer = http.head(f"/flow-runs/{run}/trace/stream")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.content == b""
    wire.cancel(server, run)


def test_data_is_one_line_whatever_is_in_it(http: httpx2.Client) -> None:
    odd = "one\ntwo\r\nthree\u2028four\x00\t: ping\n\nid: 9"
    run = wire.execute(http, "anything", parameters={"text": odd})
    found = wire.frames(http.get(f"/flow-runs/{run}/trace/stream").content.decode())
    assert [f.data["inputData"] for f in found if f.event == "step_input"] == [{"text": odd}]
    assert wire.trace_of(http, run)["steps"][0]["outputContext"] == {"text": odd}


STREAM = "/flow-runs/stream"


def blocks(answer: httpx2.Response) -> Iterator[str]:
    """The blocks of lines in an open stream, as they come."""
    assert answer.status_code == 200, answer.read()
    assert answer.headers["content-type"] == "text/event-stream"
    lines: list[str] = []
    for line in answer.iter_lines():
        if line:
            lines.append(line)
        else:
            yield "\n".join(lines)
            lines.clear()


def events(stream: Iterator[str]) -> Iterator[wire.Frame]:
    """The blocks that are events, and not a position, a comment or the time to wait."""
    return (wire.Frame(block) for block in stream if "\ndata: " in block)


def first_run(http: httpx2.Client, **resumes: Any) -> wire.Frame:
    """The first event of a stream that is cut off then."""
    with http.stream("GET", STREAM, **resumes) as answer:
        return next(events(blocks(answer)))


def test_a_list_and_the_stream_after_it_leave_no_gap_wherever_it_is_cut(http: httpx2.Client) -> None:
    # Of other tests a run may still be ending.
    eventually(lambda: all("completedAt" in run for run in http.get("/flow-runs").json()["runs"]))
    begun = seen = http.get("/flow-runs").json()["lastChange"]
    with http.stream("GET", STREAM) as answer:
        assert list(islice(blocks(answer), 2)) == ["retry: 1000", f"id: {seen}"]
    for _ in range(3):
        wire.execute(http, "anything")
    page = http.get("/flow-runs?limit=3").json()
    with http.stream("GET", STREAM, params={"after": begun}) as answer:
        come = [frame.data for frame in islice(events(blocks(answer)), 3)]
    assert come == page["runs"][::-1]
    for listed in come:
        assert "startedBy" in listed
        frame = first_run(http, headers={"Last-Event-ID": str(seen)})
        assert (frame.event, frame.data) == ("run", listed)
        seen = int(frame.id)
        assert first_run(http, params={"after": seen - 1}).data == listed
    assert seen == page["lastChange"]


@pytest.mark.parametrize(
    ("query", "before", "last"), [("status:failed", "gone", "failed"), ("status:running", "running", "gone")]
)
def test_a_query_says_which_runs_come_and_which_are_gone(
    http: httpx2.Client, query: str, before: str, last: str
) -> None:
    # It is not told, as a stream begins with what changes from then on.
    wire.ran(http, "broken")
    with http.stream("GET", STREAM, params={"q": query, "flow": "broken"}) as answer:
        stream = blocks(answer)
        assert [block[:4] for block in islice(stream, 2)] == ["retr", "id: "]
        wire.execute(http, "anything")
        # Not the same call as any other: a failure is told once more to who repeats it.
        body = {"parameters": {"for": f"this list of {query}"}}
        failed = wire.detail(http.post("/seq/acme/demo/broken/execute", json=body))["executionId"]
        found: list[tuple[str, Any]] = []
        while not found or found[-1] != (failed, last):
            frame = next(events(stream))
            found.append((frame.data["id"], frame.data["status"] if frame.event == "run" else frame.event))
    assert {run_id for run_id, _ in found} == {failed}, "the other flow is none of it"
    assert {what for _, what in found[:-1]} <= {before}


@pytest.mark.parametrize(
    ("query", "words"),
    [({"after": "999"}, "no change 999 yet; the last one is"), ({"q": "statsu:x"}, "did you mean 'status'?")],
)
def test_what_cannot_be_followed_is_refused(http: httpx2.Client, query: dict[str, str], words: str) -> None:
    assert wire.refusal(http.get(STREAM, params=query), words) == (422, "INVALID_REQUEST")


def test_what_a_query_leaves_out_moves_the_position_alone_and_then_pings_come(http: httpx2.Client) -> None:
    with http.stream("GET", STREAM, params={"q": "trigger:job"}) as answer:
        stream = blocks(answer)
        come = list(islice(stream, 2))
        wire.execute(http, "anything")
        last = http.get("/flow-runs").json()["lastChange"]
        while f"id: {last}" not in come or come[-1] != ": ping":
            come.append(next(stream))
    assert "data:" not in "".join(come)
