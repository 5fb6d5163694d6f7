"""In what order a recorder sends, and when it says that nothing more of a run is expected."""

import gzip
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runglass import Recorder
from runglass.recorder.delivery import BATCH_STEPS
from tests.e2e.command import environment


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

    class Takes(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not receiver.is_away:
                body = gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body
                for resource in msgspec.json.decode(body)["resourceSpans"]:
                    receiver.spans += resource["scopeSpans"][0]["spans"]
            self.send_response(503 if receiver.is_away else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        server.daemon_threads = True
        receiver.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


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


FORKS = """
import os, sys, threading

asked, forks, looked = (threading.Event() for _ in range(3))
found = []

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "runglass.redact":
            asked.set()
            forks.wait(60)
            # Where the fork waits for this, it has not looked.
            looked.wait(0.2)

def look():
    found.append(hasattr(sys.modules.get("runglass.redact"), "Redactor"))
    looked.set()

os.register_at_fork(before=look)
from runglass.recorder import delivery, recorder
# What is registered last is called first.
os.register_at_fork(before=forks.set)
sys.meta_path.insert(0, Finder())
nowhere = {"api_key": "nk_key", "base_url": "http://127.0.0.1:9", "spool": None}
rec = recorder.Recorder("agent", capture="redacted", **nowhere)
with rec.step("work") as step:
    step.output = "content"
asked.wait(60)
if child := os.fork():
    print(found, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)
from runglass.redact import Redactor
os._exit(0)
"""


def test_a_process_that_is_forked_while_the_redactor_is_loaded_has_it_whole() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.endswith("[True] 0\n")
