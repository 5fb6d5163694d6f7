"""The other end of `template_worker`: starts its processes, talks to them in bounded time, replaces them.

A process serves one project and is forked from one that never sees a template, so it cannot hold anything of
another project. Knows nothing of templates.
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
from collections.abc import Sequence

import msgspec

from runglass.engine.sandbox.template_worker import RenderReply, RenderRequest
from runglass.engine.workers.limits import LONG_NICE, LONG_S, be_nice
from runglass.engine.workers.process import environment
from runglass.support.json_weight import too_heavy

_START_LIMIT_S = 30.0
_PART_BYTES = 16 * 1024
PROGRAM = (sys.executable, "-P", "-m", "runglass.engine.sandbox.template_worker")


class Channel:
    """A new process for templates, and the `end` of a socket that leads to it."""

    def __init__(self, end: int) -> None:
        self.pid = 0
        self._end = end
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(end, select.POLLIN)
        self._writable.register(end, select.POLLOUT)

    def read(self, deadline: float, *, is_ready: bool = False) -> bytes:
        """The next message, whose beginning may be ready. Raises EOFError where it is late."""
        # One message at a time is on its way, so what is read is never part of the one after it.
        message = bytearray()
        while len(message) < 4 or len(message) < 4 + int.from_bytes(message[:4]):
            # Waited for already, or here.
            if not (is_ready or self.ready(deadline)):
                raise EOFError
            is_ready = False
            part = os.read(self._end, _PART_BYTES)
            if not part:
                raise EOFError
            message += part
        return bytes(memoryview(message)[4:])

    def write(self, message: bytes, deadline: float) -> None:
        rest = memoryview(message)
        while rest:
            if not _is_ready(self._writable, deadline):
                raise EOFError
            rest = rest[os.write(self._end, rest) :]

    def ready(self, deadline: float) -> bool:
        """Whether there is something to read, or the process is gone, before the deadline."""
        return _is_ready(self._readable, deadline)

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process, at once if it does nothing."""
        os.close(self._end)


class Forker:
    """Opens channels to new processes, from several threads at once; starts `program` when first needed."""

    def __init__(self, program: Sequence[str] = PROGRAM) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process that new ones are forked from; None where there is none."""
        return None if self._process is None else self._process.pid

    def open(self) -> Channel:
        """A channel to a process that has seen nothing. Raises RuntimeError where none starts."""
        try:
            return self._open()
        except EOFError:
            # What processes are forked from may have been killed, as by the system for want of memory.
            self.close()
        try:
            return self._open()
        except EOFError as error:
            raise RuntimeError(
                "no process for templates starts;"
                " `python -m runglass.engine.sandbox.template_worker` tells why"
            ) from error

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _open(self) -> Channel:
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            if self._control is None or self._process is None or self._process.poll() is not None:
                self._stop()
                self._start()
            assert self._control is not None
            # One that is gone is found out by the silence of the other end.
            with contextlib.suppress(OSError):
                socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
        ours.setblocking(False)
        channel = Channel(ours.detach())
        try:
            channel.pid = int.from_bytes(channel.read(time.monotonic() + _START_LIMIT_S))
        except BaseException:
            channel.close()
            raise
        return channel

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*self._program, str(theirs.fileno())],
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
            self._process.kill()
            self._process.wait()
        self._control = self._process = None


class TemplateWorker:
    """A process for the templates of one project: started when first asked, and again after one took it down.

    It may be used by one thread at a time.
    """

    def __init__(self, forker: Forker) -> None:
        self._forker = forker
        self._channel: Channel | None = None
        self._decoder = msgspec.json.Decoder(RenderReply)

    @property
    def pid(self) -> int | None:
        """The id of the process; None where there is none."""
        return None if self._channel is None else self._channel.pid

    def ask(self, ask: RenderRequest, *, limit_s: float = 10.0) -> RenderReply:
        """The reply. A template's work is limited inside: a process without one in `limit_s` is stuck."""
        message = msgspec.json.encode(ask)
        channel = self._opened()
        began = time.monotonic()
        deadline = began + limit_s
        try:
            channel.write(len(message).to_bytes(4) + message, deadline)
            is_long = not channel.ready(began + LONG_S)
            if is_long:
                be_nice(channel.pid, LONG_NICE)
            encoded = channel.read(deadline, is_ready=not is_long)
            if ask.want == "value" and (reason := too_heavy(encoded)):
                self._end()
                return RenderReply(fault=f"what the template makes cannot be read: {reason}")
            answer = self._decoder.decode(encoded)
        except (OSError, EOFError):
            self._end()
            return RenderReply(fault="the template takes too much memory or time")
        except BaseException:
            self._end()
            raise
        if is_long or answer.is_last:
            # A low priority cannot be raised again, and memory that was had is not given back as a whole.
            self._end()
        return answer

    def kill(self) -> None:
        """Ends what the process does; from any thread."""
        channel = self._channel
        if channel is not None:
            channel.kill()

    def close(self) -> None:
        """Ends the process."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _end(self) -> None:
        # One that is stuck does not see that it is alone.
        if self._channel is not None and not self._channel.ready(0):
            self._channel.kill()
        self.close()

    def _opened(self) -> Channel:
        # Nothing is asked of it: what there is to read is its end.
        if self._channel is not None and self._channel.ready(0):
            self.close()
        if self._channel is None:
            self._channel = self._forker.open()
        return self._channel


def _is_ready(poll: select.poll, deadline: float) -> bool:
    return bool(poll.poll(max(0, deadline - time.monotonic()) * 1000))
