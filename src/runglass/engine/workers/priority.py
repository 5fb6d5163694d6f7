"""How much of the processors the processes of steps get beside the server: they are nicer than it is.

A process whose work takes long becomes nicer still, so that a short step of another project gets a processor
at once.
"""

import contextlib
import os
import sys

WORKER_NICE = 2
"""Of every process that runs steps: the server comes first."""
LONG_NICE = 10
"""Of one whose step takes long. It can never become less again, so the process ends with that step."""
LONG_S = 0.1
"""So long a step may take like any other."""
BEYOND = 2
"""So many times as many processes go on for all projects as for one that is alone."""


def at_once() -> int:
    """How many processes one project alone keeps busy: two for each processor, so one is always ready."""
    return 2 * (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def be_nice(pid: int, nice: int) -> None:
    """Makes a process, with all its threads, at least so nice; one that is gone is left alone."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        # Linux keeps a niceness for each thread.
        threads = os.listdir(f"/proc/{pid}/task") if sys.platform == "linux" else [pid]
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)


def niceness(pid: int) -> int:
    """Of the process; that of a worker where there is no such thing, or no such process."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            return os.getpriority(os.PRIO_PROCESS, pid)
    return WORKER_NICE
