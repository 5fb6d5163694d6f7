"""Fills templates with the names of a step: prompts, and the strings of a step's own `input`.

Most templates only put names and parts of them into a text; that is done here. Everything else goes to a
process of its own, for reasons told in `rendering`, which starts when first needed and ends with this one.
Both write the same: text as it is, objects and lists as JSON; None, True and False as Jinja does.

Knows nothing of flows and steps: a template and names in, text, a value or a StepFailure out.
"""

import atexit
import functools
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from runglass.engine.paths import NOWHERE, Path, look_up
from runglass.engine.rendering import READY, TEXT_LIMIT, Answer, Ask
from runglass.errors import StepFailure

_START_LIMIT_S = 30.0
_ANSWER_LIMIT_S = 10.0
"""Of wall-clock time, for a process that is stuck; what a template may compute is limited inside."""
_CACHED_LENGTH = 16 * 1024


def render(template: str, names: Mapping[str, Any]) -> str:
    """The template's text. Raises StepFailure TEMPLATE_ERROR, for a name that does not exist among others.

    May be called from any thread. Blocks for some microseconds, or some 200 where the other process is asked.
    """
    plan = _plan(template)
    text = None if plan.pieces is None else _filled(plan.pieces, names)
    if text is None:
        text = _asked(template, plan, names, "text")
        assert isinstance(text, str)
    return text


def render_input(value: Any, names: Mapping[str, Any]) -> Any:
    """A copy of a step's `input` with each string in it rendered; otherwise like `render`.

    A string that is one `{{ expression }}` gives the expression's value, which may be an object or a list.
    """
    if isinstance(value, dict):
        return {key: render_input(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [render_input(inner, names) for inner in value]
    if not isinstance(value, str):
        return value
    plan = _plan(value)
    if not plan.is_expression:
        return render(value, names)
    path = next((piece for piece in plan.pieces or () if isinstance(piece, Path)), None)
    found = NOWHERE if path is None else look_up(path, names)
    return _asked(value, plan, names, "value") if found is NOWHERE else found


class _Plan(NamedTuple):
    """A template as far as it is understood here: `pieces` is None where the other process is needed."""

    pieces: tuple[str | Path, ...] | None
    mentions: frozenset[str]
    is_expression: bool


_NAME = r"[^\W\d]\w*+"
_STEP = rf"""\.{_NAME}|\[\d{{1,9}}\]|\["[^"\\{{}}]*"\]|\['[^'\\{{}}]*'\]"""
_PATH = re.compile(rf"\{{\{{\s*+({_NAME})((?:{_STEP})*+)\s*+\}}\}}")
_OPENING = re.compile(r"\{\{|\{%")
_CLOSING = re.compile(r"\}\}|%\}")
_EXPRESSION = re.compile(r"\s*+\{\{(?:(?!\}\}|\{\{|\{%|%\}|\{#).)*+\}\}\s*+", re.DOTALL)
_CONSTANTS = {"true", "True", "false", "False", "none", "None", "not"}


def _plan(template: str) -> _Plan:
    return _cached_plan(template) if len(template) <= _CACHED_LENGTH else _make_plan(template)


def _make_plan(template: str) -> _Plan:
    pieces: list[str | Path] = []
    at = 0
    for match in _PATH.finditer(template):
        pieces += [template[at : match.start()], Path(match[1], tuple(_steps(match[2])))]
        at = match.end()
    pieces = [piece for piece in [*pieces, template[at:]] if piece]
    simple = "{{{" not in template and all(
        piece.root not in _CONSTANTS if isinstance(piece, Path) else not re.search(r"\{[{%#]", piece)
        for piece in pieces
    )
    return _Plan(
        tuple(pieces) if simple else None, _mentions(template), _EXPRESSION.fullmatch(template) is not None
    )


_cached_plan = functools.lru_cache(maxsize=512)(_make_plan)


def _steps(text: str) -> Iterator[str | int]:
    for step in re.findall(_STEP, text):
        if step[0] == ".":
            yield step[1:]
        else:
            yield step[2:-2] if step[1] in "\"'" else int(step[1:-1])


def _mentions(template: str) -> frozenset[str]:
    """Every name that the template may use, and some that it does not."""
    mentioned: set[str] = set()
    for part in _OPENING.split(template)[1:]:
        code = _CLOSING.split(part, maxsplit=1)[0]
        # With a string or an object in it, what looks like its end may not be its end.
        mentioned.update(re.findall(_NAME, part if re.search("[\"'{]", code) else code))
    return frozenset(mentioned)


def _filled(pieces: tuple[str | Path, ...], names: Mapping[str, Any]) -> str | None:
    texts = []
    for piece in pieces:
        text = piece if isinstance(piece, str) else _text(look_up(piece, names))
        if text is None:
            return None
        texts.append(text)
    if sum(map(len, texts)) > TEXT_LIMIT:
        raise _failure(f"the template makes a text of more than {TEXT_LIMIT} characters")
    return "".join(texts)


def _text(value: Any) -> str | None:
    """The value as it stands in a text; None where the other process knows better, or that it is an error."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    # Floats and large numbers are written differently there than Python would.
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return str(value)
    return None


def _failure(message: str) -> StepFailure:
    return StepFailure("TEMPLATE_ERROR", message, may_retry=False)


def _asked(template: str, plan: _Plan, names: Mapping[str, Any], want: Literal["text", "value"]) -> Any:
    ask = Ask(template, {name: names[name] for name in plan.mentions if name in names}, want)
    answer = _process.ask(ask)
    if answer.fault is not None:
        raise _failure(answer.fault)
    return answer.value


class RenderProcess:
    """The other process: started when first asked, and again after a template took it down."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._turn = threading.Lock()
        self._decoder = msgspec.json.Decoder(Answer)

    def ask(self, ask: Ask) -> Answer:
        message = msgspec.json.encode(ask)
        with self._turn:
            process = self._started()
            try:
                self._write(process, len(message).to_bytes(4) + message)
                size = int.from_bytes(self._read(process, 4, _ANSWER_LIMIT_S))
                return self._decoder.decode(self._read(process, size, _ANSWER_LIMIT_S))
            except (OSError, EOFError):
                self._end()
                # The next template must not wait for Python to start.
                self._start()
                return Answer(fault="the template takes too much memory or time")
            except BaseException:
                self._end()
                raise

    def close(self) -> None:
        with self._turn:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or process.poll() is not None:
            self._end()
            process = self._start()
        if not self._is_ready:
            try:
                self._is_ready = self._read(process, len(READY), _START_LIMIT_S) == READY
            except EOFError as error:
                self._end()
                raise RuntimeError(
                    "no process for templates starts; `python -m runglass.engine.rendering` tells why"
                ) from error
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        self._is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runglass.engine.rendering"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            # An interrupt from the keyboard is for the server, which may still need this to end its runs.
            start_new_session=True,
        )
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _write(self, process: subprocess.Popen[bytes], message: bytes) -> None:
        assert process.stdin is not None
        rest = memoryview(message)
        while rest:
            rest = rest[process.stdin.write(rest) :]

    def _read(self, process: subprocess.Popen[bytes], size: int, limit_s: float) -> bytes:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        deadline = time.monotonic() + limit_s
        parts = []
        while size:
            if sys.platform != "win32":
                readable = select.poll()
                readable.register(fd, select.POLLIN)
                if not readable.poll(max(0, deadline - time.monotonic()) * 1000):
                    raise EOFError
            part = os.read(fd, size)
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


_process = RenderProcess()
atexit.register(_process.close)
