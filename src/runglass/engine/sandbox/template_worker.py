"""The processes in which templates are rendered, and the one that they are forked from.

minijinja bounds how much a template computes, not how much it makes of that: three nested `[…] * 1000` take
all memory, and a failed allocation ends the process. Templates can also change the objects that they are
given, by `{{ items.pop() }}`. So they run here, on copies, within a limit of memory, and may take the
process down; `template_worker_client` starts it, one for each project, and replaces it. Knows neither
flows nor steps.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import ItemsView, KeysView, ValuesView
from functools import partial
from typing import Any, BinaryIO, Literal

import minijinja
import msgspec

from runglass.engine.workers.limits import WORKER_NICE, has_had_more, limit_cpu, limit_memory, serve

FUEL = 5_000_000
"""The limits of a template: instructions, and bytes of text. At most half a second's worth."""
TEXT_LIMIT = 16 * 1024 * 1024
MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
CPU_LIMIT_S = 1.0
PEAK_BYTES = 128 << 20
"""A process that has had more memory than this ends after its answer, and gives it back."""

_NESTED = (dict, list, tuple, KeysView, ValuesView, ItemsView)
_FAULT_LENGTH = 500


class RenderRequest(msgspec.Struct, frozen=True, array_like=True):
    """A template, and whether its text is wanted or the value of its one expression."""

    template: str
    names: dict[str, Any]
    want: Literal["text", "value"]


class RenderReply(msgspec.Struct, frozen=True, array_like=True):
    """The text or value, or in one sentence why there is none. After the last one the process ends."""

    value: Any = None
    fault: str | None = None
    is_last: bool = False


_decoder = msgspec.json.Decoder(RenderRequest)
_render_str: Any = minijinja.Environment.__mro__[1].render_str  # type: ignore[attr-defined]


class _Environment(minijinja.Environment):
    def render(self, template: str, names: dict[str, Any], /) -> str:
        """As `render_str`, which has a parameter `self` and so cannot be given a name like that."""
        text: str = _render_str(self, template, **names)
        return text


class Renderer:
    """Renders templates in this process."""

    def __init__(self) -> None:
        self._last: Any = None
        self._environment = _Environment(
            undefined_behavior="strict",
            fuel=FUEL,
            auto_escape_callback=lambda _: False,
            keep_trailing_newline=True,
            finalizer=self._written,
            filters={"tojson": _json},
        )

    def answer(self, ask: RenderRequest) -> RenderReply:
        """Never raises for a template, short of the end of the process."""
        try:
            text = self._environment.render(ask.template, ask.names)
            if len(text) > TEXT_LIMIT:
                return RenderReply(fault=f"the template makes a text of more than {TEXT_LIMIT} characters")
            return RenderReply(text if ask.want == "text" else _plain(self._last))
        except minijinja.TemplateError as error:
            return RenderReply(fault=_fault(error))
        except MemoryError:
            return RenderReply(fault="the template takes too much memory")
        except Exception as error:
            # A method of an object that the template called, like `.pop()` with a wrong key.
            return RenderReply(fault=f"{type(error).__name__} in the template: {error}"[:_FAULT_LENGTH])
        finally:
            self._last = None

    def _written(self, value: Any) -> Any:
        # Objects stand in a text as JSON: a language model, or a person, expects no Python there.
        self._last = value
        if callable(value):
            raise TypeError("a method, or function, stands where a value is needed; is there no such key?")
        return _json(value) if isinstance(value, _NESTED) else NotImplemented


def _json(value: Any, indent: int | None = None) -> str:
    encoded = msgspec.json.encode(value, enc_hook=_listed)
    if indent:
        encoded = msgspec.json.format(encoded, indent=min(int(indent), 8))
    return encoded.decode()


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_listed))


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, _NESTED):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")


def _fault(error: minijinja.TemplateError) -> str:
    told = error.detail or error.kind
    if error.kind == "UndefinedError":
        told = told.replace("is undefined", "does not exist")
    elif error.kind == "SyntaxError":
        told = f"the template is malformed: {told}"
    elif error.kind == "OutOfFuel":
        told = "the template does too much work, or makes too much text"
    where = f" (line {error.line})" if error.line else ""
    return told[:_FAULT_LENGTH] + where


def _answered(renderer: Renderer, message: bytes) -> bytes:
    limit_cpu(CPU_LIMIT_S)
    try:
        answer = renderer.answer(_decoder.decode(message))
        encoded = msgspec.json.encode(answer)
        if has_had_more(PEAK_BYTES):
            return msgspec.json.encode(msgspec.structs.replace(answer, is_last=True))
        return encoded
    except MemoryError:
        fault = "the template and its values take too much memory"
        return msgspec.json.encode(RenderReply(fault=fault, is_last=True))


def _serve(source: BinaryIO, sink: BinaryIO) -> None:
    # The first message that a process sends is its number.
    pid = os.getpid().to_bytes(8)
    serve(source, sink, partial(_answered, Renderer()), greeting=len(pid).to_bytes(4) + pid)


def _fork_for_each(control: socket.socket) -> None:
    """Forks a process for every socket that comes over `control`, until that ends."""
    # Their exit states are not read: the client of one sees that it is gone.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    while True:
        _, ends, _, _ = socket.recv_fds(control, 1, 1)
        if not ends:
            return
        if os.fork() == 0:
            control.close()
            limit_memory(MEMORY_LIMIT_BYTES)
            with os.fdopen(ends[0], "rb") as source, os.fdopen(os.dup(ends[0]), "wb") as sink:
                _serve(source, sink)
            return
        os.close(ends[0])


if __name__ == "__main__":
    os.nice(WORKER_NICE)
    if len(sys.argv) > 1:
        with socket.socket(fileno=int(sys.argv[1])) as control:
            _fork_for_each(control)
    else:
        _serve(sys.stdin.buffer, sys.stdout.buffer)
