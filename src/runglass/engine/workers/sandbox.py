"""Runs the code of steps, and expressions, in other processes, within limits.

This process stays up whatever that code does: it is never evaluated here, and nothing but text comes back.
A result that crossed as objects would be built here, and a small value that holds itself a hundred times over
(`a = [a, a]`, repeated) would take all memory. So the sandbox writes the JSON, under its own limits.

Knows nothing of flows and steps: code and names in, a JSON value or a StepFailure out.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from runglass.config.settings import USUAL, Settings
from runglass.engine.workers.code_transform import (
    NOWHERE,
    QUICK,
    RESULT_LINES,
    RESULT_USES,
    RESULT_WRITER,
    Program,
    as_path,
    look_up,
    of_body,
    of_expression,
)
from runglass.engine.workers.sandbox_processes import SandboxProcesses
from runglass.errors import StepFailure
from runglass.limits.limits import most
from runglass.limits.offload import offload, offload_in_turn, yield_to_others
from runglass.support.json_weight import too_heavy

if TYPE_CHECKING:
    from pydantic_monty import CollectStreams, MontyError, ResourceLimits

log = logging.getLogger(__name__)

RECURSION_LIMIT = 500
SUSPENSION_LIMIT = 1000
"""How often code may ask the host for something: the clock, a file it will not get, a pause."""
PRINT_LIMIT = 64 * 1024
"""Characters that are kept of what code prints."""
MAX_PRINTED = (4 << 20) - 1
"""Bytes that code may print, with some more for each print; no limit of memory is the same number."""
RESULT_SHARE = 4
"""As JSON a result may have this part of the memory limit: as objects it takes up to 20 times the room."""
_SHOWN = 2000
_FRAMES = 20


class Sandbox:
    """Processes that run code; they start when first needed, and none runs code of two projects.

    A context manager, for any number of tasks at once: a task waits for the turn of its project, which does
    not count against its time limit. Two steps go on for each processor, or `max_processes`, and those
    of further projects beside them. A process that dies, or whose task is cancelled, is replaced.
    """

    def __init__(self, settings: Settings = USUAL, *, max_processes: int | None = None) -> None:
        time_limit_ms, memory_limit_bytes = settings.code_time_limit_ms, settings.code_memory_limit_bytes
        limits: ResourceLimits = {
            "max_feed_duration_secs": time_limit_ms / 1000,
            # Sleeping is not counted as running; it gets the same time once more.
            "max_total_sleep_secs": time_limit_ms / 1000,
            "max_memory": memory_limit_bytes,
            "max_recursion_depth": RECURSION_LIMIT,
            "max_suspensions": SUSPENSION_LIMIT,
        }
        self._limit_values: dict[_Limit, int] = {
            "time": time_limit_ms,
            "sleep": time_limit_ms,
            "memory": memory_limit_bytes,
            "recursion": RECURSION_LIMIT,
            "suspensions": SUSPENSION_LIMIT,
            "print": MAX_PRINTED,
        }
        self._result_limit_bytes = memory_limit_bytes // RESULT_SHARE
        most_each = most(settings.max_concurrent_steps_per_project)
        self.processes = SandboxProcesses(limits, slots=max_processes, most_each=most_each)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.processes.close()

    def run(self, code: str, names: Mapping[str, Any], *, project_id: int = 0) -> Coroutine[Any, Any, Any]:
        """The value that `code`, the body of a function, returns: plain JSON, None where it returns nothing.

        The names are its variables; it gets those that it mentions. Raises StepFailure: CODE_ERROR,
        SANDBOX_LIMIT, INVALID_OUTPUT for a result that JSON cannot hold, INVALID_INPUT for such a name.
        """
        return self._feed(of_body, code, names, project_id)

    async def evaluate(self, expression: str, names: Mapping[str, Any], *, project_id: int = 0) -> Any:
        """The value of a Python expression; otherwise like `run`.

        A name, or an item of it like `steps["a"]["items"]`, is looked up here and returned without a copy.
        """
        path = as_path(expression) if len(expression) <= QUICK else None
        value = NOWHERE if path is None else look_up(path, names)
        if value is NOWHERE:
            return await self._feed(of_expression, expression, names, project_id)
        return value

    async def _feed(
        self, read: Callable[[str], Program], code: str, names: Mapping[str, Any], project_id: int
    ) -> Any:
        # A thread cannot do away with the parser's own time, but with that of the walks over a large tree.
        program = read(code) if len(code) <= QUICK else await offload_in_turn(partial(read, code))
        # Imported when needed: a server that runs no code starts sooner and stays smaller.
        import pydantic_monty as monty

        inputs = {name: names[name] for name in program.names if name in names}
        is_first = True
        while True:
            # Gathered in native code: a call of Python for each piece would hold everybody else up.
            printed = monty.CollectStreams(MAX_PRINTED)
            try:
                async with self.processes.turns.turn(project_id):
                    async with self.processes.session(project_id) as session:
                        source = RESULT_WRITER + program.source
                        if not inputs.keys().isdisjoint(RESULT_USES):
                            # A field named `str` must not change how results are written: one more exchange.
                            await session.feed_run(RESULT_WRITER)
                            source = "\n" * RESULT_LINES + program.source
                        result = await session.feed_run(source, inputs=inputs, print_callback=printed)
                    size = len(result) if isinstance(result, str) else 0
                    return await offload(partial(self._decoded, result), size_bytes=size)
            except monty.MontyConversionError as error:
                raise StepFailure(
                    "INVALID_INPUT", f"the code cannot be given its input: {error}", may_retry=False
                ) from error
            except monty.MontyError as error:
                failure = self._failure(error, code, printed)
                if failure.details.get("limit") != "crash" or not is_first:
                    raise failure from error
                # It may have been dead before it got the code, which has no effect outside and can run again.
                is_first = False

    def _failure(self, error: "MontyError", code: str, printed: "CollectStreams") -> StepFailure:
        raised = error.exception()
        name, message = type(raised).__name__, str(raised)
        frames = [
            (frame.line - RESULT_LINES, frame.function_name)
            for frame in getattr(error, "traceback", list)()
            if frame.line > RESULT_LINES and frame.filename.startswith("<python-input")
        ]
        line = frames[-1][0] if frames else None
        limit = _limit_of(error, name, message)
        details: dict[str, Any] = {"exception": name, "line": line}
        if text := "".join(piece for _, piece in printed.output)[:PRINT_LIMIT]:
            details["printed"] = text
        where = "" if line is None else f" (line {line})"
        if limit == "crash":
            log.warning("a process that ran code died: %s", _shortened(message))
            return StepFailure(
                "SANDBOX_LIMIT", "the process that ran the code died, twice", details={"limit": "crash"}
            )
        if limit is not None:
            value = self._limit_values[limit]
            details = {"limit": limit, "value": value, **details}
            return StepFailure(
                "SANDBOX_LIMIT", f"the code went over its {_LIMITS[limit] % value}{where}", details=details
            )
        details["traceback"] = _traceback(frames, code, f"{name}: {message}"[:_SHOWN])
        what = f"{name}: {message}" if message else name
        return StepFailure("CODE_ERROR", f"{_shortened(what)}{where}", details=details)

    def _decoded(self, result: Any) -> Any:
        """In a thread where it is large."""
        if not isinstance(result, str):
            raise StepFailure(
                "INVALID_OUTPUT", "the code tampered with the way in which its result is written"
            )
        if result.startswith("\0"):
            _, path, reason = result.split("\0", 2)
            raise _unfit(path, reason)
        if len(result) > self._result_limit_bytes:
            raise StepFailure(
                "SANDBOX_LIMIT",
                f"the result has {len(result)} characters as JSON; the limit is {self._result_limit_bytes}",
                details={"limit": "result", "value": self._result_limit_bytes},
            )
        encoded = result.encode(errors="surrogatepass")
        if heavy := too_heavy(encoded, between=yield_to_others):
            raise _unfit("", heavy)
        try:
            return msgspec.json.decode(result)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _unfit("", str(error)) from error


_Limit = Literal["time", "sleep", "memory", "recursion", "suspensions", "print"]
_LIMITS: dict[_Limit, str] = {
    "time": "time limit of %d ms",
    "sleep": "limit of %d ms of sleep",
    "memory": "memory limit of %d bytes",
    "recursion": "recursion limit of %d calls",
    "suspensions": "limit of %d calls to the system",
    "print": "limit of %d printed bytes",
}
_SIGNS: dict[tuple[str, str], _Limit] = {
    ("TimeoutError", "feed time limit exceeded"): "time",
    ("TimeoutError", "sleep limit exceeded"): "sleep",
    ("MemoryError", "memory limit exceeded"): "memory",
    ("MemoryError", "the worker exceeded its memory limit"): "memory",
    ("RecursionError", "maximum recursion depth exceeded"): "recursion",
    ("RuntimeError", "suspension limit"): "suspensions",
}
"""A TimeoutError that the code itself raised is no limit, so the message counts."""


def _limit_of(error: "MontyError", name: str, message: str) -> _Limit | Literal["crash"] | None:
    from pydantic_monty import MontyCrashedError

    if name == "MemoryError" and message.endswith(f"> {MAX_PRINTED} bytes"):
        return "print"
    if isinstance(error, MontyCrashedError):
        return "time" if error.timed_out else "crash"
    return next(
        (limit for (kind, start), limit in _SIGNS.items() if name == kind and message.startswith(start)), None
    )


def _unfit(path: str, reason: str) -> StepFailure:
    where = f" at {_shortened(path)}" if path else ""
    return StepFailure("INVALID_OUTPUT", f"the result cannot be kept as JSON{where}: {_shortened(reason)}")


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _traceback(frames: list[tuple[int, str | None]], code: str, last: str) -> str:
    # The lines come from the code as it was written; the sandbox has only the transformed code.
    lines = code.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    told = ["Traceback (most recent call last):"]
    for line, function in frames[-_FRAMES:]:
        told.append(f"  line {line}, in {function}" if function else f"  line {line}")
        told += [f"    {_shortened(text.strip())}" for text in lines[line - 1 : line]]
    return "\n".join([*told, last])
