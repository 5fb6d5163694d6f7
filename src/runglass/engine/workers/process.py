"""The server's end of `worker`: starts processes, asks them in bounded time, and lets none outlive a limit.

What comes back is bytes, and a bounded number of them. Knows nothing of their meaning.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys

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
    """One process, at the other `end` of a socket; asked by one task at a time."""

    def __init__(self, end: socket.socket, *, nice: int) -> None:
        self.pid = 0
        self._end = end
        self._nice = nice
        self._is_lowered = False

    @property
    def is_closed(self) -> bool:
        return self._end.fileno() < 0

    @property
    def is_open(self) -> bool:
        """Whether it takes messages. Between these there is nothing to read but its end."""
        try:
            self._end.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def greet(self) -> None:
        """Returns when the process is there. Raises WorkerDied where it does not come."""
        async with asyncio.timeout(_START_LIMIT_S):
            self.pid = int.from_bytes(await self._received(4))

    async def exchange(self, message: bytes, *, limit_ms: int) -> tuple[State, bytes]:
        """The answer to a message. Raises WorkerDied, also after `WALL_FACTOR` times its limit.

        The process is closed where it must not be asked again.
        """
        loop = asyncio.get_running_loop()
        lowering = loop.call_later(LONG_S, self._lower_priority)
        try:
            async with asyncio.timeout(WALL_FACTOR * limit_ms / 1000):
                await loop.sock_sendall(self._end, REQUEST.pack(len(message), limit_ms) + message)
                size, state = REPLY.unpack(await self._received(REPLY.size))
                lowering.cancel()
                if size > _REPLY_LIMIT_BYTES:
                    raise WorkerDied("size")
                reply = await self._received(size)
        except EOFError as error:
            self.close()
            raise WorkerDied(str(error)) from error
        except BaseException as error:
            # It is still at it, and nobody waits for that any more.
            self.kill()
            self.close()
            if isinstance(error, OSError):
                raise WorkerDied("time" if isinstance(error, TimeoutError) else "unknown") from error
            raise
        finally:
            lowering.cancel()
        if self._is_lowered or state in (State.DONE_AND_ENDS, State.OUT_OF_MEMORY):
            self.close()
        if state == State.OUT_OF_MEMORY:
            raise WorkerDied("memory")
        return state, reply

    def kill(self) -> None:
        """Ends what the process does."""
        if self.pid and not self.is_closed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process, at once if it does nothing."""
        self._end.close()

    async def _received(self, size: int) -> bytes:
        """The next bytes. Raises EOFError with the cause where the process ends before them."""
        loop, received = asyncio.get_running_loop(), bytearray()
        while len(received) < size:
            part = await loop.sock_recv(self._end, min(size - len(received), _BUFFER_BYTES))
            if not part:
                # The last byte is the signal that has ended it.
                raise EOFError(_CAUSES.get(received[-1] if received else 0, "unknown"))
            received += part
        return bytes(received)

    def _lower_priority(self) -> None:
        if self._nice < LONG_NICE:
            # It cannot be raised again, so the process ends with its answer.
            be_nice(self.pid, LONG_NICE)
            self._is_lowered = True


_CAUSES: dict[int, str] = {
    **dict.fromkeys((signal.SIGPROF, signal.SIGXCPU), "time"),
    # A failed allocation aborts native code.
    **dict.fromkeys((signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS), "memory"),
}


class Forker:
    """Opens processes that answer with a `function`, `MODULE:NAME`.

    What they are forked from starts when first needed. `what` says in an error what they are for.
    """

    def __init__(self, function: str, *, what: str, memory_limit_bytes: int, nice: int) -> None:
        self._function = function
        self._what = what
        self._memory_limit_bytes = memory_limit_bytes
        self._nice = nice
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_over = False

    @property
    def pid(self) -> int | None:
        """The id of the process that others are forked from; None where there is none."""
        return None if self._process is None else self._process.pid

    async def open(self) -> WorkerProcess:
        """A process that has seen nothing. Raises WorkerNotStarted."""
        program = f"python -P -m runglass.engine.workers.worker {self._function}"
        for _ in range(2):
            if self._is_over:
                break
            try:
                process, source = self._forked(), self._process
                try:
                    await process.greet()
                except EOFError:
                    process.close()
                    # What processes are forked from may have been killed, as by the system for want of
                    # memory. Of those who waited for it only the first replaces it.
                    if self._process is source:
                        self._stop()
                except BaseException:
                    process.close()
                    raise
                else:
                    return process
            except OSError as error:
                raise WorkerNotStarted(f"no process for {self._what} starts: {error}") from error
        raise WorkerNotStarted(f"no process for {self._what} starts; `{program}` tells why")

    async def aclose(self) -> None:
        """Ends all processes for good; returns when they have ended."""
        self._is_over = True
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        control, process = self._control, self._process
        self._control = self._process = None
        if control is not None:
            control.close()
        if process is not None:
            try:
                # It ends by itself, and its processes with it.
                process.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _forked(self) -> WorkerProcess:
        if self._process is None or self._process.poll() is not None:
            self._stop()
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
                    # An interrupt from the keyboard is for the server, which may still need this to end its
                    # runs.
                    start_new_session=True,
                )
        assert self._control is not None
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        ours.setblocking(False)
        # One that is gone is found out by the silence of the other end.
        with theirs, contextlib.suppress(OSError):
            socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
        return WorkerProcess(ours, nice=self._nice)


def environment() -> dict[str, str]:
    """The environment of a process: only the variables that Python needs to start.

    The server's own has the keys of providers in it.
    """
    needed = ("PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    inherited = {name: os.environ[name] for name in needed if name in os.environ}
    return {**inherited, "PYTHONPATH": os.pathsep.join(sys.path)}
