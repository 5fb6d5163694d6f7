"""What goes wrong beside a program that records itself costs it nothing, and nothing is lost in silence."""

import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from runglass import Client, Recorder, StepTrace, Trace
from runglass.errors import RunglassError
from runglass.support.clock import SystemClock, iso
from runglass.testing import RunningServer, running_server
from runglass.wire.run_api import CaptureMode
from tests.contract.test_kept_content import set_capture
from tests.e2e.command import environment, hears_ctrl_c
from tests.http_server import Reply, answering
from tests.ports import free_port
from tests.records import there
from tests.waiting import eventually

SECRET = "sk-proj-" + "a1B2c3D4" * 6
PLAIN = "a plain sentence of some length"
LEASE_S = 3
"""Of the steps of other programs."""


class Place:
    """A server that comes and goes, at one address and with one key, and the state folder of its senders."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state"
        self.spool = self._state / "runglass" / "spool"
        self._data = folder / "data"
        self._port = free_port()
        self.base_url = f"http://127.0.0.1:{self._port}/api/v1"
        self.programs = ExitStack()
        with self.server() as server:
            self.key = server.key

    def server(self, **settings: Any) -> AbstractContextManager[RunningServer]:
        """The server, until the block ends; it keeps all content."""
        return running_server(port=self._port, data=self._data, capture="full", **settings)

    def recorder(self, **options: Any) -> Recorder:
        server = {"api_key": self.key, "base_url": self.base_url, "spool": self.spool}
        return Recorder("agent", **{**server, **options})

    def spooled(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.spool.glob("*")))

    def program(self, code: str, *arguments: str) -> "subprocess.Popen[str]":
        """A program of its own that records itself as `rec`, which it does not close.

        At its end it sends what is left, however long that takes.
        """
        begin = f"""
import functools, os, signal, sys, time
import runglass, runglass.recorder.recorder as module
module.Delivery = functools.partial(module.Delivery, exit_s=600)
rec = runglass.Recorder('agent', lease_s={LEASE_S})
"""
        variables = {
            "RUNGLASS_API_KEY": self.key,
            "RUNGLASS_BASE_URL": self.base_url,
            "XDG_STATE_HOME": str(self._state),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", begin + textwrap.dedent(code), *arguments],
            env=environment(PYTHONUNBUFFERED="1", **variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hears_ctrl_c,
        )
        self.programs.enter_context(process)
        self.programs.callback(process.kill)
        return process

    def done(self, code: str, *arguments: str) -> str:
        """What such a program prints, once it has ended well."""
        process = self.program(code, *arguments)
        out, errors = process.communicate(timeout=600)
        assert (process.returncode, "Traceback" in errors) == (0, False), errors
        return out.strip()

    def trace(self, run_id: str) -> Trace | None:
        """The trace, if the server has any of it."""
        with Client(self.key, base_url=self.base_url) as client:
            try:
                return client.run(run_id).trace()
            except RunglassError:
                return None

    def steps(self, run_id: str, holds: Callable[[list[StepTrace]], object] = bool) -> list[StepTrace]:
        """The steps of a run, once it holds of them."""

        def read() -> list[StepTrace] | None:
            trace = self.trace(run_id)
            steps = [] if trace is None else list(trace.steps)
            return steps if holds(steps) else None

        return eventually(read)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    with place.programs:
        yield place


class StandingClock:
    """The clock of all servers: no time passes on it but what a test says, however slow the machine is."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        return self._now

    def passes(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StandingClock:
    clock = StandingClock()
    monkeypatch.setattr(SystemClock, "now", clock.now)
    return clock


def ended(count: int) -> Callable[[list[StepTrace]], bool]:
    """Holds of so many steps that have all ended."""
    return lambda steps: len(steps) == count and all(step.status != "running" for step in steps)


def test_what_is_recorded_while_the_server_is_away_comes_whole_and_once(place: Place) -> None:
    with place.recorder(lease_s=3) as rec:
        with rec.run("away") as run:
            for number in range(50):
                with rec.step("work") as step:
                    step.output = {"number": number, "text": PLAIN}
        # Nobody has said what the server keeps: all of it waits in memory, and the rest on disk, too.
        assert rec.flush(30)
        assert b'"work"' in place.spooled()
        assert PLAIN.encode() not in place.spooled()
        with place.server():
            steps = place.steps(run.id, ended(51))
            told = [step.output_context for step in steps if step.name == "work"]
            assert told == [{"number": number, "text": PLAIN} for number in range(50)]
            eventually(lambda: not list(place.spool.glob("*")))


def test_a_run_goes_on_over_an_outage_in_which_it_is_not_taken_for_lost(
    place: Place, clock: StandingClock
) -> None:
    with place.recorder(lease_s=3) as rec:
        with rec.run("long") as run:
            with place.server():
                with rec.step("before"):
                    pass
                assert rec.flush(30)
            with rec.step("meanwhile"):
                pass
            assert rec.flush(30)
        clock.passes(3600)
        with place.server():
            steps = place.steps(run.id, ended(3))
            assert Counter(step.name for step in steps) == Counter(["long", "before", "meanwhile"])
            with Client(place.key, base_url=place.base_url) as client:
                assert len(list(client.runs())) == 1


def test_a_program_that_ends_without_the_server_leaves_its_steps_to_the_next(place: Place) -> None:
    code = """
        with rec.run("first") as run, rec.step("work") as step:
            step.output = {"text": sys.argv[1]}
        print(run.id)
    """
    process = place.program(code, PLAIN)
    run_id, errors = (told.strip() for told in process.communicate(timeout=60))
    assert process.returncode == 0, errors
    [path] = place.spool.glob("*")
    # Else nobody would know why there is no run.
    root = place.base_url.removesuffix("/api/v1")
    assert errors.startswith(
        f"what is recorded waits in {place.spool} until the server takes it: {root} cannot"
    )
    assert len(errors.splitlines()) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.spool.stat().st_mode) == 0o700
    assert PLAIN.encode() not in path.read_bytes()
    with path.open("ab") as torn:
        torn.write(b"0000ffff00000000\n{")
    with place.server():
        place.done("with rec.step('second'): pass")
        steps = place.steps(run_id, ended(2))
        assert {step.name for step in steps} == {"first", "work"}
        [work] = [step for step in steps if step.name == "work"]
        assert any("bytes of content are not in the spool" in note for note in work.notes)
        assert list(place.spool.glob("*")) == []


def test_what_an_earlier_program_has_left_is_sent_though_the_next_one_records_nothing(place: Place) -> None:
    """And stays where its key is refused."""
    run_id = place.done("with rec.run('first') as run: print(run.id)")
    port = urlsplit(place.base_url).port or 0
    with answering(lambda _: Reply(401), port=port), place.recorder() as rec:
        assert not rec.flush(30)
    assert list(place.spool.glob("*"))
    with place.server(), place.recorder():
        assert [step.name for step in place.steps(run_id, ended(1))] == ["first"]
        eventually(lambda: not list(place.spool.glob("*")))
    threads = set(threading.enumerate())
    with place.recorder():
        assert set(threading.enumerate()) <= threads


def hears(rec: Recorder, server: RunningServer, mode: CaptureMode) -> None:
    """The server keeps content in this mode from now on, and the recorder knows."""
    set_capture(server, mode)
    with rec.step("hears"):
        pass
    assert rec.flush(30)


def test_what_only_the_spool_has_is_sent_though_nothing_else_is_recorded(place: Place) -> None:
    with place.recorder(buffer_bytes=20_000) as rec:
        with place.server() as server:
            hears(rec, server, "full")
        with rec.run("large") as run:
            for number in range(60):
                with rec.step("work") as step:
                    step.output = {"number": number, "text": PLAIN * 40}
                if number % 10 == 9:
                    assert rec.flush(30)
            run.output = PLAIN * 400
        assert rec.flush(30)
        with place.server():
            steps = place.steps(run.id, ended(61))
            told = [(step.output_context or {}).get("number") for step in steps if step.name == "work"]
            assert (len(told), set(told)) == (60, set(range(60)))
            eventually(lambda: not list(place.spool.glob("*")))


@pytest.mark.parametrize("mode", ["off", "metadata_only", "redacted", "full"])
def test_the_spool_has_only_what_the_server_keeps(place: Place, mode: CaptureMode) -> None:
    with place.recorder() as rec:
        with place.server() as server:
            hears(rec, server, mode)

        @rec.step
        def work(text: str, key: str) -> None:
            with rec.model_call(model="m", messages=[{"role": "user", "content": text}]):
                raise ValueError(f"{text} {key}")

        with pytest.raises(ValueError, match=PLAIN):
            work(PLAIN, SECRET)
        assert rec.flush(30)
        spooled = place.spooled()
        assert b'"work"' in spooled
        assert (PLAIN.encode() in spooled) == (mode in ("redacted", "full"))
        assert (SECRET.encode() in spooled) == (mode == "full")


def test_what_a_full_buffer_drops_is_told_in_the_run(place: Place) -> None:
    with place.recorder(spool=None, buffer_bytes=100_000) as rec:
        with rec.run("full") as run:
            for _ in range(500):
                with rec.step("work") as step:
                    step.output = PLAIN * 30
        with place.server():
            steps = place.steps(run.id, lambda steps: any(step.notes for step in steps))
            [note] = next(step.notes for step in steps if step.name == "full")
            dropped = int(note.removeprefix("the sender dropped ").split(" steps")[0])
            kept = [step for step in steps if step.name == "work"]
            assert 0 < len(kept) == 500 - dropped
            assert all(step.status == "completed" for step in steps)


def test_a_run_that_began_where_no_room_was_left_says_how_it_ended_and_what_is_missing(place: Place) -> None:
    with place.recorder(spool=None, buffer_bytes=20_000) as rec:
        for _ in range(60):
            with rec.run("fills") as fills:
                fills.output = PLAIN * 20
        with suppress(ValueError), rec.run("top") as run:
            with rec.step("dropped"):
                pass
            with place.server():
                assert rec.flush(30)
            with rec.step("kept"):
                pass
            raise ValueError("in the end")
        with place.server():
            steps = {step.name: step for step in place.steps(run.id, ended(2))}
            assert {name: step.status for name, step in steps.items()} == {
                "top": "failed",
                "kept": "completed",
            }
            assert steps["top"].notes == ("the sender dropped 1 steps, and 0 bytes of content",)


def test_content_that_no_buffer_holds_leaves_the_buffer_free(place: Place) -> None:
    with place.server(), place.recorder(buffer_bytes=20_000) as rec:
        for _ in range(3):
            for _ in range(50):
                with rec.run("large") as run:
                    run.output = PLAIN * 1000
            assert rec.flush(60)
        with rec.run("small") as run:
            run.output = PLAIN * 200
        assert rec.flush(60)
        [step] = place.steps(run.id)
        assert (step.name, step.output_context) == ("small", {"text": PLAIN * 200})


def test_the_open_steps_of_a_killed_program_are_lost_after_their_lease(
    place: Place, clock: StandingClock
) -> None:
    code = """
        with rec.run("killed") as run:
            with rec.step("done"):
                pass
            with rec.step("open"):
                rec.flush()
                print(run.id)
                signal.pause()
    """
    with place.server(recording_settle_s=4):
        process = place.program(code)
        run_id = there(process.stdout).readline().strip()
        begun = place.steps(run_id, lambda steps: len(steps) == 3)
        assert {step.name: step.status for step in begun} == {
            "killed": "running",
            "open": "running",
            "done": "completed",
        }
        process.kill()
        process.communicate()
        clock.passes(10)
        place.steps(run_id, ended(3))
        trace = there(place.trace(run_id))
        assert there(trace.flow_run.error).code == "WRITER_LOST"
        assert {step.name: step.status for step in trace.steps} == {
            "killed": "failed",
            "open": "failed",
            "done": "completed",
        }


def test_a_step_longer_than_its_lease_is_not_lost(place: Place, clock: StandingClock) -> None:
    code = """
        with rec.run("slow") as run:
            rec.flush()
            print(run.id)
            sys.stdin.readline()
    """
    with place.server() as server:
        process = place.program(code)
        run_id = there(process.stdout).readline().strip()
        place.steps(run_id)
        store = server.runtime.store

        def was_heard_of() -> bool:
            """Whether the lease begins now."""
            almost = clock.now() + timedelta(seconds=LEASE_S - 0.1)
            return not server.call(store.due_recordings(now=iso(almost), limit=100))

        for _ in range(5):
            eventually(was_heard_of)
            clock.passes(LEASE_S - 1)
        assert [step.status for step in place.steps(run_id)] == ["running"]


def test_processes_that_are_forked_and_those_of_a_pool_record_in_one_run_and_send_at_their_end(
    place: Place,
) -> None:
    code = """
        def work(headers, number):
            with rec.run("work", parent=headers) as run:
                run.output = {"number": number}

        known = {*sys.modules}
        with rec.run("parent") as run:
            with rec.step("before", capture="redacted") as step:
                step.output = {"api_key": "secret"}
            rec.flush()
            # Of what is imported later a process that is forked meanwhile would have half.
            imported = sorted({*sys.modules} - known)
            children = []
            for name in ("one", "two"):
                if not (pid := os.fork()):
                    with rec.step(name):
                        pass
                    rec.close(600)
                    os._exit(0)
                children.append(pid)
            for pid in children:
                os.waitpid(pid, 0)

            import concurrent.futures, multiprocessing
            fork = multiprocessing.get_context("fork")
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
                list(pool.map(work, [rec.headers()] * 6, range(6)))
            process = fork.Process(target=work, args=(rec.headers(), 6))
            process.start()
            process.join()
        print(run.id, *imported)
    """
    with place.server():
        [run_id] = place.done(code).split()
        steps = place.steps(run_id)
    [top] = [step for step in steps if step.name == "parent"]
    assert {step.parent_span_id for step in steps if step is not top} == {top.span_id}
    assert Counter(step.name for step in steps) == {"parent": 1, "before": 1, "one": 1, "two": 1, "work": 7}
    told = {(step.output_context or {}).get("number") for step in steps if step.name == "work"}
    assert told == set(range(7))


def test_a_program_that_does_not_close_its_recorder_sends_all_at_its_end(place: Place) -> None:
    code = """
        import atexit

        @atexit.register
        def at_last():
            with rec.run("last", parent={"traceparent": f"00-{run.id}-{run.span_id}-01"}):
                pass

        with rec.run("quick") as run:
            for number in range(100):
                with rec.step("work"):
                    pass
        print(run.id)
        raise SystemExit
    """
    with place.server():
        assert len(place.steps(place.done(code))) == 102
    assert not list(place.spool.glob("*"))


def test_two_hundred_threads_record_each_step_once(place: Place) -> None:
    with place.server(), place.recorder() as rec:

        def work(number: int) -> int:
            barrier.wait()
            for each in range(10):
                with rec.step("outer"), rec.step("inner") as inner:
                    inner.output = {"thread": number, "each": each}
            return number

        barrier = threading.Barrier(200)
        with rec.run("threads") as run, ThreadPoolExecutor(200) as pool:
            assert list(pool.map(rec.bind(work), range(200))) == list(range(200))
        assert rec.flush(60)
        steps = place.steps(run.id)
        assert len(steps) == 4001
        outer = {step.span_id for step in steps if step.name == "outer"}
        inner = [step for step in steps if step.name == "inner"]
        assert {step.parent_span_id for step in inner} == outer
        told = {tuple((step.output_context or {}).values()) for step in inner}
        assert told == {(number, each) for number in range(200) for each in range(10)}


def test_a_durable_step_is_stored_before_the_code_goes_on(place: Place) -> None:
    with place.server(), place.recorder(durable=True) as rec, rec.run("durable") as run:
        assert [step.status for step in place.steps(run.id)] == ["running"]
        with rec.step("pay"):
            names = {step.name: step.status for step in place.steps(run.id)}
            assert names == {"durable": "running", "pay": "running"}
        assert {step.name: step.status for step in place.steps(run.id)}["pay"] == "completed"


def test_a_durable_step_whose_wait_is_interrupted_is_not_left_open(place: Place) -> None:
    code = """
        rec = runglass.Recorder("agent", durable=True, spool=None)
        try:
            with rec.run("waits", parent={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}):
                print("not reached")
        except KeyboardInterrupt:
            print("interrupted")
        sys.stdin.readline()
    """
    process = place.program(code)
    assert "waits in memory until the server takes it" in there(process.stderr).readline()
    process.send_signal(signal.SIGINT)
    with place.server():
        [step] = place.steps("ab" * 16, ended(1))
        assert (step.error_context or {})["code"] == "KeyboardInterrupt"
        assert process.communicate("\n", timeout=60)[0] == "interrupted\n"


def test_a_key_that_is_refused_costs_nothing_but_the_recording(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with place.server(), place.recorder(api_key="nk_" + "0" * 40) as rec:
        for _ in range(3):
            with rec.step("work"):
                pass
            assert not rec.flush(30)
    told = [record.getMessage() for record in caplog.records if "refuses the key" in record.getMessage()]
    assert len(told) == 1
    assert not list(place.spool.glob("*"))
