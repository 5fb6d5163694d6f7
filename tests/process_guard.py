"""Stands above a long command and ends all that it has started, however the command itself comes to its end.

What the command does is not known here. It goes on in a child process with a session of its own, so that one
signal reaches it, and once, whoever sends how many to whom: a terminal, `make`, `timeout`. It has a moment to
end in order. What is left of it then, servers that have made themselves independent among them, is killed.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GRACE_S = 5.0
"""From a signal to the end of everything."""
ENDED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def stand_guard(*, grace_s: float = GRACE_S) -> None:
    """Returns in a child process, in which the program goes on; where the system is Linux, else in this one.

    SIGINT, SIGTERM and SIGHUP become a KeyboardInterrupt there, but one that is ignored, as by `nohup`. When
    the child has ended, or `grace_s` after such a signal, all of its processes are killed, and this process
    exits: with the code of the child, or with 128 and the number of the signal.
    """
    ending = {number for number in ENDED_BY if signal.getsignal(number) != signal.SIG_IGN}
    if signal.SIGTERM in ending:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.platform != "linux":
        return
    # Before there is a child: no signal comes between, and none is missed while something else is done.
    watched = {*ending, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    # What loses its parent is this process's child from then on, and found.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        os.setsid()
        _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        # A guard that is killed itself ends nothing: what it guards is told to end in order.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != guard:
            os._exit(1)
        # Ignored or not before: the guard tells it by this one.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before - watched)
        return
    code = _watch(child, watched, grace_s)
    _kill_the_rest()
    os._exit(code)


def _watch(child: int, watched: set[signal.Signals], grace_s: float) -> int:
    """Returns when the child has ended, or its time is over: the exit code."""
    code, until_s = 0, float("inf")
    while (left_s := until_s - time.monotonic()) > 0:
        came = signal.sigtimedwait(watched, min(left_s, 3600.0))
        if came is None:
            continue
        if came.si_signo == signal.SIGCHLD:
            for pid, status in _ended():
                if pid == child:
                    ended = os.waitstatus_to_exitcode(status)
                    return code or (ended if ended >= 0 else 128 - ended)
        elif not code:
            code, until_s = 128 + came.si_signo, time.monotonic() + grace_s
            os.kill(child, signal.SIGINT)
    return code


def _ended() -> Iterator[tuple[int, int]]:
    """The children that have ended, with their statuses; each once."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _kill_the_rest() -> None:
    """Kills all processes below this one; returns when they are gone."""
    while found := below(os.getpid()):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.wait()


def below(above: int) -> list[int]:
    """The children of a process, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(") ")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(above, ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")
