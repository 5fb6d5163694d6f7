"""`GET /flow-runs/stream`: the live list of runs over a real socket, resumed wherever it was cut."""

import json
from typing import Any

import httpx2
import pytest

from runglass.wire.sse import Decoder, Frame
from tests.contract.wire import ANYTHING, BROKEN, detail, execute, refusal
from tests.servers import server_with

STREAM = "/flow-runs/stream"


server = server_with(ANYTHING, BROKEN, capture="full", tail_poll_s=0.05, ping_s=0.2)


class Tail:
    """An open stream, read frame by frame."""

    def __init__(self, answer: httpx2.Response) -> None:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        self._chunks = answer.iter_bytes()
        self.decoder = Decoder()
        self.raw = b""
        self._frames: list[Frame] = []

    def frame(self) -> Frame:
        while not self._frames:
            self._read()
        return self._frames.pop(0)

    def until(self, run_id: str, status: str) -> list[tuple[str, Any]]:
        """What comes up to this status of the run: its id and status, or the id of one that is gone."""
        found: list[tuple[str, Any]] = []
        while not found or found[-1] != (run_id, status):
            frame = self.frame()
            data = json.loads(frame.data)
            found.append((data["id"], data["status"] if frame.event == "run" else frame.event))
        return found

    def until_raw(self, text: bytes) -> None:
        """Reads on up to these bytes."""
        while text not in self.raw:
            self._read()

    def _read(self) -> None:
        chunk = next(self._chunks)
        self.raw += chunk
        self._frames += self.decoder.feed(chunk)


def test_runs_come_as_they_begin_and_end(http: httpx2.Client) -> None:
    before = execute(http, "anything")
    with http.stream("GET", STREAM) as answer:
        tail = Tail(answer)
        tail.until_raw(b"retry: 1000\n\nid: ")
        run = execute(http, "anything")
        found = tail.until(run, "completed")
    assert {run_id for run_id, _ in found} == {run}, "what was before is not told"
    assert before != run
    assert {status for _, status in found} <= {"pending", "running", "completed"}


def test_a_list_and_the_stream_after_it_leave_no_gap(http: httpx2.Client) -> None:
    begun = http.get("/flow-runs").json()["lastChange"]
    runs = [execute(http, "anything") for _ in range(2)]
    page = http.get("/flow-runs").json()
    runs.append(execute(http, "anything"))
    with http.stream("GET", STREAM, params={"after": page["lastChange"]}) as answer:
        assert Tail(answer).until(runs[-1], "completed") == [(runs[-1], "completed")]
    with http.stream("GET", STREAM, params={"after": begun}) as answer:
        found = Tail(answer).until(runs[-1], "completed")
    assert found == [(run, "completed") for run in runs]


def test_a_stream_that_was_cut_goes_on_where_it_was_with_runs_as_in_the_list(http: httpx2.Client) -> None:
    begun = http.get("/flow-runs").json()["lastChange"]
    with http.stream("GET", STREAM) as answer:
        first = Tail(answer)
        first.until_raw(b"id: %d\n\n" % begun)
    for _ in range(3):
        execute(http, "anything")
    seen = first.decoder.last_event_id
    for listed in reversed(http.get("/flow-runs?limit=3").json()["runs"]):
        # Cut after each run: the next connection brings the one that follows, and no other.
        with http.stream("GET", STREAM, headers={"Last-Event-ID": seen}) as answer:
            frame = Tail(answer).frame()
            assert (frame.event, json.loads(frame.data)) == ("run", listed)
            assert "startedBy" in listed
            seen = frame.id


def test_a_query_says_which_runs_come_and_which_are_gone(http: httpx2.Client) -> None:
    with http.stream("GET", STREAM, params={"q": "status:failed", "flow": "broken"}) as answer:
        tail = Tail(answer)
        tail.until_raw(b"id: ")
        execute(http, "anything")
        failed = detail(http.post("/seq/acme/demo/broken/execute", json={}))["executionId"]
        found = tail.until(failed, "failed")
    assert {run_id for run_id, _ in found} == {failed}, "the other flow is none of it"
    assert {what for _, what in found[:-1]} <= {"gone"}


def test_where_nothing_changes_pings_come(http: httpx2.Client) -> None:
    with http.stream("GET", STREAM) as answer:
        Tail(answer).until_raw(b": ping\n\n")


@pytest.mark.parametrize(
    ("query", "words"),
    [({"after": "999"}, "no change 999 yet; the last one is"), ({"q": "statsu:x"}, "did you mean 'status'?")],
)
def test_what_cannot_be_followed_is_refused(http: httpx2.Client, query: dict[str, str], words: str) -> None:
    assert refusal(http.get(STREAM, params=query), words) == (422, "INVALID_REQUEST")


def test_what_a_query_leaves_out_moves_the_position_alone(http: httpx2.Client) -> None:
    with http.stream("GET", STREAM, params={"q": "trigger:job"}) as answer:
        tail = Tail(answer)
        tail.until_raw(b"id: ")
        execute(http, "anything")
        tail.until_raw(b"id: %d\n\n" % http.get("/flow-runs").json()["lastChange"])
    assert b"data:" not in tail.raw
