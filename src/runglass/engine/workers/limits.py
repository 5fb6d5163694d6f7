"""The limits that a worker process puts on itself, its loop of messages, and how nice it is to the server.

A process whose work takes long becomes nicer still, so that a short step of another project gets a processor
at once.
"""

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO

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
    with contextlib.suppress(OSError):
        # Linux keeps a niceness for each thread.
        threads = os.listdir(f"/proc/{pid}/task") if sys.platform == "linux" else [pid]
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)


def niceness(pid: int) -> int:
    """Of the process; that of a worker where there is no such process."""
    with contextlib.suppress(OSError):
        return os.getpriority(os.PRIO_PROCESS, pid)
    return WORKER_NICE


READY = b"\0\0\0\0"
"""The message of a process that can take the first task."""
PEAK_BYTES = 192 << 20
"""A process that has had more memory than this ends after its answer, and gives it back."""
_PR_SET_PDEATHSIG = 1


def work(answer: Callable[[bytes], bytes], *, memory_limit_bytes: int, nice: int = WORKER_NICE) -> None:
    """The main loop of a worker process: answers messages until its server ends."""
    die_with_parent()
    os.nice(nice)
    limit_memory(memory_limit_bytes)
    serve(sys.stdin.buffer, sys.stdout.buffer, answer, is_done=lambda: has_had_more(PEAK_BYTES))


def serve(
    source: BinaryIO,
    sink: BinaryIO,
    answer: Callable[[bytes], bytes],
    *,
    greeting: bytes = READY,
    is_done: Callable[[], bool] = lambda: False,
) -> None:
    """Answers the messages in `source` until that ends, or `is_done` says so after an answer.

    It begins with a `greeting`. Four bytes ahead of a message say how long it is. A limit that `answer` puts
    on the processor is lifted.
    """
    sink.write(greeting)
    sink.flush()
    while header := source.read(4):
        said = answer(source.read(int.from_bytes(header)))
        limit_cpu(0)
        sink.write(len(said).to_bytes(4) + said)
        sink.flush()
        if is_done():
            return


def limit_cpu(seconds: float) -> None:
    """Ends the process once it has computed so long from now on; 0 takes the limit away."""
    # The signal has no handler, so it ends the process in the middle of its work.
    signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(limit_bytes: int) -> None:
    """Lets further allocations fail once the process has so much; only Linux can."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with_parent() -> None:
    """Ends the process with the one that started it, however that ends; only Linux can."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def has_had_more(limit_bytes: int) -> bool:
    """Whether the process has had more memory than this."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return peak > limit_bytes
    # Linux counts what was there before this program, too: a copy of the server that has started it.
    return peak * 1024 > limit_bytes and _program_peak_kib() * 1024 > limit_bytes


def _program_peak_kib() -> int:
    """0 where the kernel does not tell, as that of a sandbox may not."""
    with open("/proc/self/status", "rb") as status:
        return next((int(line.split()[1]) for line in status if line.startswith(b"VmHWM:")), 0)
