"""Nothing that a guarded command has started outlives it, however it ends."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30.0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is found below a process")

COMMAND = """
import os, signal, subprocess, sys
from tests import process_guard
# Whoever runs the tests in the background may ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
process_guard.stand_guard(grace_s={grace_s})
# A signal that comes just before somebody waits ends the wait, too, which it does not with `signal.pause`.
waiting, waking = os.pipe()
os.set_blocking(waking, False)
signal.set_wakeup_fd(waking)
# Independent of everybody, and deaf, as a database server may be that is stopped.
deaf = "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); print(1, flush=True); s.sigwait([s.SIGUSR1])"
if {starts}:
    line = ["sh", "-c", "setsid " + sys.executable + ' -c "$0" &', deaf]
    subprocess.Popen(line, stdout=subprocess.PIPE).stdout.readline()
ready = False
while True:
    try:
        if not ready:
            ready = True
            print("ready", flush=True)
        {then}
    except KeyboardInterrupt:
        print("told", flush=True)
        {at_end}
"""


def guarded(
    *,
    then: str = "os.read(waiting, 1)",
    at_end: str = "sys.exit(5)",
    grace_s: float = 20.0,
    starts: bool = True,
) -> "subprocess.Popen[str]":
    """A command that has started another process, which has its standard error as well."""
    code = COMMAND.format(then=then, at_end=at_end, grace_s=grace_s, starts=starts)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit code, and what was said until nobody was left who could say something."""
    said, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_ends_in_order_and_what_it_started_is_killed(
    number: signal.Signals,
) -> None:
    process = guarded()
    # `make` passes on what `timeout` has sent to all of its group.
    process.send_signal(number)
    process.send_signal(number)
    assert end(process) == (128 + number, "told\n")


def test_a_command_that_does_not_end_is_killed_after_a_moment() -> None:
    process = guarded(at_end="continue", grace_s=0.3)
    process.terminate()
    code, _ = end(process)
    assert code == 143


def test_a_command_that_ends_by_itself_has_its_own_code_and_leaves_nothing() -> None:
    assert end(guarded(then="sys.exit(3)")) == (3, "")


def test_a_command_whose_guard_is_killed_is_told_to_end() -> None:
    process = guarded(starts=False)
    process.kill()
    assert end(process) == (-signal.SIGKILL, "told\n")
