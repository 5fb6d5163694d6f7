"""In what order a recorder sends, and when it says that nothing more of a run is expected."""

import gc
import gzip
import math
import multiprocessing
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import copy_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from runglass import Recorder
from runglass.recorder.delivery import BATCH_STEPS
from runglass.recorder.spans import OpenRun
from tests.http_server import Reply, Request, answering


class Receiver:
    """A server that takes spans, or is away, or refuses them."""

    def __init__(self) -> None:
        self.is_away = False
        self.refusal = 503
        self.spans: list[dict[str, Any]] = []
        """All that has come, in its order."""
        self.names: SimpleQueue[str] = SimpleQueue()
        self.address = ""

    def wait_for(self, name: str) -> None:
        """Waits for a span of that name, without telling the recorder to send it."""
        while self.names.get(timeout=30) != name:
            pass

    def states(self, trace_id: str) -> list[tuple[str, bool, int | None]]:
        """Of a trace the names that have come, whether that was their end, and what was said of the rest."""
        found = []
        for span in self.spans:
            if span["traceId"] == trace_id:
                told = {each["key"]: each["value"] for each in span["attributes"]}
                settle = told.get("runglass.settle_s", {}).get("intValue")
                found.append((span["name"], "endTimeUnixNano" in span, settle and int(settle)))
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    def take(request: Request) -> Reply:
        if receiver.is_away:
            return Reply(receiver.refusal)
        body = request.body
        body = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        for resource in msgspec.json.decode(body)["resourceSpans"]:
            spans = resource["scopeSpans"][0]["spans"]
            receiver.spans += spans
            for span in spans:
                receiver.names.put(span["name"])
        return Reply(200)

    with answering(take) as receiver.address:
        yield receiver


Make = Callable[..., Recorder]


@pytest.fixture
def recorder(receiver: Receiver, tmp_path: Path) -> Iterator[Make]:
    made = []

    def make(**options: Any) -> Recorder:
        options = {"spool": tmp_path, **options}
        made.append(Recorder("agent", api_key="nk_key", base_url=receiver.address, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_first_step_of_a_run_is_sent_last_and_says_that_nothing_more_is_expected(
    receiver: Receiver, recorder: Make
) -> None:
    rec = recorder()
    with rec.run("top") as run:
        assert rec.flush()
        with rec.step("inside"):
            assert rec.flush()
    assert rec.flush(math.inf)
    assert rec.flush(None)  # type: ignore[arg-type]
    *begun, last = receiver.states(run.id)
    assert last == ("top", True, 5)
    assert {(name, settle_s) for name, _, settle_s in begun} == {("top", None), ("inside", None)}
    with rec.step("alone") as alone:
        pass
    assert rec.flush()
    assert receiver.states(alone.trace_id) == [("alone", True, 5)]
    receiver.is_away = True
    with rec.run("left") as left:
        behind = rec.step("behind")
        behind.__enter__()
    behind.__exit__(None, None, None)
    receiver.is_away = False
    rec.close(math.inf)
    assert receiver.states(left.id) == [("behind", True, None), ("left", True, 5)]


def test_a_run_in_which_something_goes_on_says_nothing_of_its_end(receiver: Receiver, recorder: Make) -> None:
    rec = recorder()
    with rec.run("open") as run:
        behind = rec.step("behind")
        step = behind.__enter__()
    assert rec.flush()
    behind.__exit__(None, None, None)
    with rec.run("elsewhere") as elsewhere:
        headers = rec.headers()
    with rec.run("here", parent=headers):
        pass
    with rec.run("forked") as forked:
        process = multiprocessing.get_context("fork").Process(target=int)
        process.start()
        process.join()
    assert rec.flush()
    assert step.trace_id == run.id
    for trace_id in (run.id, elsewhere.id, forked.id):
        assert [settle_s for _, _, settle_s in receiver.states(trace_id) if settle_s] == []
        assert receiver.states(trace_id)


def fill(rec: Recorder, receiver: Receiver) -> None:
    """Leaves no room for another run in a buffer of 20 kB."""
    receiver.is_away = True
    for _ in range(60):
        with rec.run("fills") as fills:
            fills.output = "x" * 1000


@pytest.mark.parametrize("is_forked", [False, True])
def test_a_run_that_began_where_no_room_was_left_is_told_of_once_there_is(
    receiver: Receiver, recorder: Make, is_forked: bool
) -> None:
    rec = recorder(spool=None, buffer_bytes=20_000)
    fill(rec, receiver)
    with rec.run("top") as run:
        if is_forked:
            process = multiprocessing.get_context("fork").Process(target=int)
            process.start()
            process.join()
        receiver.is_away = False
        assert rec.flush(), "which makes room"
        receiver.wait_for("top")
        assert receiver.states(run.id) == [("top", False, None)]
    assert rec.flush()
    assert receiver.states(run.id)[1:] == [("top", True, None if is_forked else 5)]


def test_a_run_begins_before_what_is_inside_of_it(receiver: Receiver, recorder: Make) -> None:
    rec = recorder(buffer_bytes=20_000)

    @rec.step
    def large(text: str) -> Generator[int, None, None]:
        yield len(text)

    going = large("x" * 30_000)
    next(going)
    with rec.run("top") as run:
        # Its content is left out, which makes room, for a short while.
        going.close()
        inside = large("x" * 30_000)
        next(inside)
        assert rec.flush()
        assert set(receiver.states(run.id)) == {("top", False, None), ("large", False, None)}
        inside.close()


def test_nothing_is_held_of_a_run_that_began_without_room_before_the_key_was_refused(
    receiver: Receiver, recorder: Make
) -> None:
    rec = recorder(spool=None, buffer_bytes=20_000)
    fill(rec, receiver)
    # It never ends.
    copy_context().run(rec.run("unbegun").__enter__)
    receiver.refusal = 401
    assert not rec.flush()
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is OpenRun and each.name == "unbegun"]


def test_a_server_that_is_back_is_asked_before_the_lease_of_a_step_is_over(
    receiver: Receiver, recorder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backoff_s = Mock(return_value=0.0)
    monkeypatch.setattr("runglass.recorder.delivery.backoff_s", backoff_s)
    receiver.is_away = True
    for lease_s in (3, 30):
        rec = recorder(lease_s=lease_s)
        with rec.run("top"):
            assert rec.flush()
        rec.close()
    assert {asked.kwargs["most_s"] for asked in backoff_s.call_args_list} == {1.0, 5.0}


def test_a_lease_without_end_is_waited_for_in_peace(
    recorder: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("runglass.recorder.spans.reported", set())
    rec = recorder(lease_s=sys.maxsize)
    with rec.run("top"):
        # Between two of them the sender has nothing to do but to wait for the next time to tell of the run.
        assert all(rec.flush() for _ in range(20))
    assert caplog.messages == []


def is_whole_at_its_end(receiver: Receiver, trace_id: str, steps: int) -> bool:
    """Whether, when the end is told first, the ends of so many steps inside have come."""
    before: set[str] = set()
    for span in receiver.spans:
        if span["traceId"] == trace_id:
            if any(each["key"] == "runglass.settle_s" for each in span["attributes"]):
                return len(before - {span["spanId"]}) == steps
            if "endTimeUnixNano" in span:
                before.add(span["spanId"])
    return False


@pytest.mark.parametrize("buffer_bytes", [32 << 20, 200_000])
def test_a_run_that_a_spool_delivers_in_batches_tells_its_end_behind_all_of_them(
    receiver: Receiver, recorder: Make, buffer_bytes: int
) -> None:
    """From memory, and from disk alone where memory was short; then from a recorder that is gone."""
    steps = 2 * BATCH_STEPS + 1
    for is_same in (True, False):
        receiver.is_away = True
        rec = recorder(buffer_bytes=buffer_bytes)
        with rec.run("top") as run:
            for number in range(steps):
                with rec.step("inside"):
                    pass
                if number % 200 == 0:
                    assert rec.flush()
        assert rec.flush()
        if not is_same:
            rec.close()
        receiver.is_away = False
        rec = rec if is_same else recorder()
        assert rec.flush()
        assert is_whole_at_its_end(receiver, run.id, steps)


def test_a_close_waits_for_a_silent_server_no_longer_than_it_may_and_spools_what_is_left(
    tmp_path: Path,
) -> None:
    goes_on, threads = threading.Event(), {*threading.enumerate()}

    def silent(_: Request) -> Reply:
        goes_on.wait()
        return Reply(200)

    with answering(silent) as address:
        rec = Recorder("agent", api_key="nk_key", base_url=address, spool=tmp_path)
        with rec.step("work"):
            pass
        rec.close(0)
        assert "runglass-recorder" in {thread.name for thread in {*threading.enumerate()} - threads}
        assert b'"work"' in b"".join(path.read_bytes() for path in tmp_path.glob("*"))
        goes_on.set()
