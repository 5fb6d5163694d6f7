"""The server's end of `worker`: starts processes, asks them in bounded time, and lets none outlive a limit.

What comes back is bytes, and a bounded number of them. Knows nothing of their meaning.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

from runglass.engine.workers.worker import REPLY, REQUEST, State

WORKER_NICE = 2
"""Of every process that runs steps: the server comes first."""
LONG_NICE = 10
"""Of one whose step takes long. It can never become less again, so the process ends with that step."""
LONG_S = 0.1
"""So long a step may take like any other."""
BEYOND = 2
"""So many times as many processes go on for all projects as for one that is alone."""
WALL_FACTOR = 10
"""How much longer than its limit of the processor a task may take: others may have the processor."""
_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 5.0
_PART_BYTES = 16 * 1024
_BUFFER_BYTES = 1 << 20
_REPLY_LIMIT_BYTES = 128 << 20
"""A text of a template may take as much. What a process that was taken over sends is read here."""


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


class WorkerDied(Exception):
    """The process ended, or was killed, before it answered.

    `cause` is `time`, `memory`, `size`, which is that of the answer, or `unknown`.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"the process ended before it answered: {cause}")
        self.cause = cause


class WorkerNotStarted(RuntimeError):
    """No process can be started, or it ends before it takes a message."""


class WorkerProcess:
    """One process, at the other `end` of a socket; used by one thread at a time."""

    def __init__(self, end: int, *, nice: int) -> None:
        self.pid = 0
        self._end = end
        self._nice = nice
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(end, select.POLLIN)
        self._writable.register(end, select.POLLOUT)

    @property
    def is_closed(self) -> bool:
        return self._end < 0

    @property
    def is_open(self) -> bool:
        """Whether it takes messages. Between these there is nothing to read but its end."""
        return self._end >= 0 and not self._readable.poll(0)

    def greet(self) -> None:
        """Returns when the process is there. Raises OSError or EOFError where it does not come."""
        self._await(self._readable, time.monotonic() + _START_LIMIT_S)
        self.pid = int.from_bytes(os.read(self._end, 4))
        if not self.pid:
            raise EOFError

    def exchange(self, message: bytes, *, limit_ms: int) -> bytes:
        """The answer to a message. Raises WorkerDied, also after `WALL_FACTOR` times its limit.

        The process is closed where it must not be asked again.
        """
        began = time.monotonic()
        deadline = began + WALL_FACTOR * limit_ms / 1000
        reply = bytearray()
        ends = True
        try:
            rest = memoryview(REQUEST.pack(len(message), limit_ms) + message)
            while rest:
                try:
                    rest = rest[os.write(self._end, rest) :]
                except BlockingIOError:
                    self._await(self._writable, deadline)
            is_long = self._nice < LONG_NICE and not _is_ready(self._readable, began + LONG_S)
            if is_long:
                be_nice(self.pid, LONG_NICE)
            size, state = 0, State.DONE
            while len(reply) < REPLY.size + size:
                try:
                    # Each time that a thread goes on with the next part it may wait for the interpreter.
                    left = REPLY.size + size - len(reply)
                    part = os.read(self._end, min(max(left, _PART_BYTES), _BUFFER_BYTES))
                except BlockingIOError:
                    self._await(self._readable, deadline)
                    continue
                if not part:
                    raise EOFError
                reply += part
                if len(reply) >= REPLY.size:
                    size, state = REPLY.unpack_from(reply)
                    if size > _REPLY_LIMIT_BYTES:
                        self.kill()
                        raise WorkerDied("size")
            # A low priority cannot be raised again.
            ends = is_long or state != State.DONE
        except EOFError as error:
            # The last byte is the signal that has ended it.
            raise WorkerDied(_CAUSES.get(reply[-1] if reply else 0, "unknown")) from error
        except OSError as error:
            self.kill()
            raise WorkerDied("time" if isinstance(error, TimeoutError) else "unknown") from error
        finally:
            if ends:
                self.close()
        if state == State.OUT_OF_MEMORY:
            raise WorkerDied("memory")
        return bytes(memoryview(reply)[REPLY.size : REPLY.size + size])

    def kill(self) -> None:
        """Ends what the process does; from any thread."""
        if self._end >= 0 and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process, at once if it does nothing."""
        end, self._end = self._end, -1
        if end >= 0:
            os.close(end)

    def _await(self, poll: select.poll, deadline: float) -> None:
        if not _is_ready(poll, deadline):
            raise TimeoutError


_CAUSES: dict[int, str] = {
    **dict.fromkeys((signal.SIGPROF, signal.SIGXCPU), "time"),
    # A failed allocation aborts native code.
    **dict.fromkeys((signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS), "memory"),
}


def _is_ready(poll: select.poll, deadline: float) -> bool:
    return bool(poll.poll(max(0, deadline - time.monotonic()) * 1000))


class Forker:
    """Opens processes that answer with a `function`, `MODULE:NAME`, from several threads at once.

    What they are forked from starts when first needed. `what` says in an error what they are for.
    """

    def __init__(self, function: str, *, what: str, memory_limit_bytes: int, nice: int) -> None:
        self._function = function
        self._what = what
        self._memory_limit_bytes = memory_limit_bytes
        self._nice = nice
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process that others are forked from; None where there is none."""
        return None if self._process is None else self._process.pid

    def open(self) -> WorkerProcess:
        """A process that has seen nothing. Raises WorkerNotStarted."""
        program = f"python -P -m runglass.engine.workers.worker {self._function}"
        for _ in range(2):
            try:
                return self._open()
            except OSError as error:
                raise WorkerNotStarted(f"no process for {self._what} starts: {error}") from error
            except EOFError:
                # What processes are forked from may have been killed, as by the system for want of memory.
                self.close()
        raise WorkerNotStarted(f"no process for {self._what} starts; `{program}` tells why")

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            self._stop()

    def _open(self) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        with ours, self._lock, theirs:
            if self._control is None or self._process is None or self._process.poll() is not None:
                self._stop()
                self._start()
            assert self._control is not None
            # One that is gone is found out by the silence of the other end.
            with contextlib.suppress(OSError):
                socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
            ours.setblocking(False)
            process = WorkerProcess(ours.detach(), nice=self._nice)
        try:
            process.greet()
        except BaseException:
            process.close()
            raise
        return process

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        arguments = (self._function, theirs.fileno(), self._memory_limit_bytes, self._nice)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "runglass.engine.workers.worker", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment(),
                # An interrupt from the keyboard is for the server, which may still need this to end its runs.
                start_new_session=True,
            )

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                # It ends by itself, and its processes with it.
                self._process.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control = self._process = None


def environment() -> dict[str, str]:
    """The environment of a process: only the variables that Python needs to start.

    The server's own has the keys of providers in it.
    """
    needed = ("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    inherited = {name: os.environ[name] for name in needed if name in os.environ}
    return {**inherited, "PYTHONPATH": os.pathsep.join(sys.path)}
