"""In what order a recorder sends, and when it says that nothing more of a run is expected."""

import gzip
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runglass import Recorder
from runglass.recorder.delivery import BATCH_STEPS
from tests.http_server import Reply, answering


class Receiver:
    """A server that takes spans, or is away."""

    def __init__(self) -> None:
        self.is_away = False
        self.spans: list[dict[str, Any]] = []
        """All that has come, in its order."""
        self.address = ""

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

    def take(_: str, body: bytes) -> Reply:
        if receiver.is_away:
            return Reply(503)
        body = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        for resource in msgspec.json.decode(body)["resourceSpans"]:
            receiver.spans += resource["scopeSpans"][0]["spans"]
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
    assert rec.flush()
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
    assert rec.flush()
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
