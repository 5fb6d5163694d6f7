"""The processes that can be killed: `python -P -m runglass.engine.workers.worker` with what `main` reads.

The first process imports the function, which makes bytes of bytes, and never sees a message. For each socket
that comes over its own it forks a process that answers messages with the function, within limits, and may be
taken down by them. A request has its length and its milliseconds of the processor ahead, a reply its length
and a `State`. Nothing but bytes goes either way; an error of the function is a `Failure` as JSON. When a
process has ended, the first one sends the number of the signal that ended it, in one byte, and closes its
socket; where the server has closed the other end, it kills the process. Knows nothing of what the function
does.
"""

import contextlib
import gc
import importlib
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Literal

import msgspec

from runglass.errors import APIError, FlowFileError, Problem, RunglassError, StepFailure, api_error

REQUEST = struct.Struct(">II")
REPLY = struct.Struct(">IB")
PEAK_BYTES = 192 << 20
"""A process that has had more memory than this ends after its answer, and gives it back."""


class State(IntEnum):
    """What a reply is, and whether its process goes on."""

    DONE = 0
    DONE_AND_ENDS = 1
    OUT_OF_MEMORY = 2
    FAILED = 3


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An error of the function, to be raised where it was called."""

    kind: Literal["api", "step", "flow"]
    code: str = ""
    message: str = ""
    step_id: str | None = None
    details: dict[str, Any] = {}
    may_retry: bool = True
    problems: list[Problem] = []
    warnings: list[Problem] = []

    @classmethod
    def of(cls, error: APIError | StepFailure | FlowFileError) -> "Failure":
        """What is left of an error on its way."""
        match error:
            case APIError():
                return cls("api", error.code, error.message, error.step_id, error.details)
            case StepFailure():
                return cls("step", error.code, error.message, None, error.details, error.may_retry)
            case FlowFileError():
                return cls("flow", problems=error.problems, warnings=error.warnings)

    def error(self) -> RunglassError:
        """The error again."""
        match self.kind:
            case "api":
                return api_error(self.code, self.message, step_id=self.step_id, details=self.details)
            case "step":
                return StepFailure(self.code, self.message, may_retry=self.may_retry, details=self.details)
            case "flow":
                return FlowFileError(self.problems, warnings=self.warnings)


def _serve(channel: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    """Sends the id of the process, then answers messages until they end, or the process has had its share."""
    source, sink = channel.makefile("rb"), channel.makefile("wb")
    sink.write(os.getpid().to_bytes(4))
    sink.flush()
    state = State.DONE
    while state in (State.DONE, State.FAILED) and (header := source.read(REQUEST.size)):
        size, limit_ms = REQUEST.unpack(header)
        try:
            # The signal has no handler, so it ends the process in the middle of its work.
            signal.setitimer(signal.ITIMER_PROF, limit_ms / 1000)
            reply = answer(source.read(size))
            # Linux counts in kibibytes.
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
                1 if sys.platform == "darwin" else 1024
            )
            state = State.DONE_AND_ENDS if peak > PEAK_BYTES else State.DONE
        except (APIError, StepFailure, FlowFileError) as error:
            state, reply = State.FAILED, msgspec.json.encode(Failure.of(error))
        except (MemoryError, RecursionError):
            state, reply = State.OUT_OF_MEMORY, b""
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(REPLY.pack(len(reply), state))
        sink.write(reply)
        sink.flush()


def _fork_for_each(control: socket.socket, answer: Callable[[bytes], bytes], *, limit_bytes: int) -> None:
    ends: dict[int, int] = {}

    def bury(*_: object) -> None:
        while ends:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with socket.socket(fileno=ends.pop(pid)) as end, contextlib.suppress(OSError):
                end.send(bytes([status & 0x7F]), socket.MSG_DONTWAIT)

    signal.signal(signal.SIGCHLD, bury)
    watched = select.poll()
    watched.register(control, select.POLLIN)
    while True:
        # One at a time: in the next turn its number may be that of another socket.
        fd = watched.poll()[0][0]
        # No process ends before its socket is known, and none that has ended leaves its number to another.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if fd != control.fileno():
            # Its other end is closed, and one that was taken over does not end by itself.
            watched.unregister(fd)
            for pid in [pid for pid, end in ends.items() if end == fd]:
                os.kill(pid, signal.SIGKILL)
        elif not (received := socket.recv_fds(control, 1, 1)[1]):
            break
        elif pid := os.fork():
            ends[pid] = received[0]
            watched.register(received[0], 0)
        else:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            control.close()
            for end in ends.values():
                os.close(end)
            if sys.platform == "linux":
                # Only Linux can limit memory.
                resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            try:
                _serve(socket.socket(fileno=received[0]), answer)
            finally:
                # Nothing is left to tidy up, in memory that is shared until it is written.
                os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    # The server has ended, and what they do is for nobody.
    for pid in ends:
        os.kill(pid, signal.SIGKILL)


def main() -> None:
    name, control, limit_bytes, nice = sys.argv[1:]
    module, _, function = name.partition(":")
    answer = getattr(importlib.import_module(module), function)
    os.nice(int(nice))
    gc.freeze()
    # JSON holds no cycles, and to look for some in a million new objects takes longer than to make them.
    # Others go with their process, before they are many.
    gc.disable()
    with socket.socket(fileno=int(control)) as ours:
        _fork_for_each(ours, answer, limit_bytes=int(limit_bytes))


if __name__ == "__main__":
    main()
