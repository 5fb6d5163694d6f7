"""How much one run may do: iterations, bytes of outputs, bytes of log. Counted over all of its segments.

A large run is stopped by these before it fills the disk and memory that all share; a usual one never meets
them. A segment is asked to end also by whoever cancels its run, and as the process stops.
"""

import asyncio
import contextlib
from typing import Any, NoReturn

from runglass.config.settings import Settings
from runglass.errors import StepFailure


class DrainGate:
    """Lets attempts begin until it is closed; `inside` of its block are those that go on."""

    def __init__(self) -> None:
        self.inside = 0
        self.closed = False
        self._empty = asyncio.Event()

    async def opened(self) -> None:
        """Returns at once; never, but by cancellation, once the gate is closed."""
        if self.closed:
            await asyncio.Event().wait()

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(self, *exc: object) -> None:
        self.inside -= 1
        if self.closed and not self.inside:
            self._empty.set()

    async def close(self, grace_s: float) -> None:
        """Lets no attempt begin any more; returns when none goes on, or after `grace_s` seconds."""
        self.closed = True
        if self.inside:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._empty.wait()


class LimitReached(Exception):
    """The run is at a limit, of its budget or its log, and ends with `error`; the step was not begun."""

    def __init__(self, step_id: str, error: dict[str, Any]) -> None:
        super().__init__(step_id)
        self.step_id = step_id
        self.error = error


class StopRequest:
    """Asks a segment that goes on to end as cancelled, or to leave the run to the process that claims it.

    `limit` is the limit that the run has reached: it fails, and all its steps that go on fail with it.
    `is_behind` is why it is left: the store has less of it than it said.
    """

    __slots__ = ("cancelled", "is_behind", "left", "limit")

    def __init__(self) -> None:
        self.cancelled: str | None = None
        self.left = False
        self.is_behind = False
        self.limit: LimitReached | None = None

    @property
    def requested(self) -> bool:
        return self.left or self.cancelled is not None

    @property
    def is_last_word(self) -> bool:
        """Whether the event that ends the run also ends the attempts that are cut off."""
        return self.cancelled is not None or self.limit is not None

    def reached(self, step_id: str, error: dict[str, Any]) -> LimitReached:
        """What to raise at a limit."""
        self.limit = LimitReached(step_id, error)
        return self.limit


class RunUsage:
    """The part of its limits that a run has used. Outputs are the checkpoints that it needs to go on."""

    __slots__ = ("_settings", "iterations", "log_bytes", "output_bytes", "workers")

    def __init__(self, settings: Settings, *, iterations: int = 0, output_bytes: int = 0) -> None:
        self.iterations = iterations
        self.output_bytes = output_bytes
        self.workers = 0
        """Those of all its loops at this moment, without the first one of each, which may always begin."""
        self.log_bytes = settings.run_log_bytes
        """How long the log may be."""
        self._settings = settings

    def iterate(self, count: int, *, step_id: str) -> None:
        """Takes the iterations of a loop that is about to begin. Raises StepFailure before the first."""
        limit = self._settings.run_iterations
        if self.iterations + count > limit:
            _refuse(
                f"loop {step_id!r} has {count:,} items and the run has made {self.iterations:,} iterations;"
                f" a run may make {limit:,} (setting run_iterations)",
                limit="iterations",
                value=limit,
                setting="run_iterations",
            )
        self.iterations += count

    def keep(self, size: int, *, step_id: str) -> None:
        """Takes room for an output, or for the decision of a container. Raises StepFailure."""
        self.output_bytes += size
        limit = self._settings.run_output_bytes
        if self.output_bytes > limit:
            self.output_bytes -= size
            _refuse(
                f"the output of step {step_id!r} has {size:,} bytes and those before it"
                f" {self.output_bytes:,}; a run may keep {limit:,} (setting run_output_bytes)",
                limit="outputs",
                value=limit,
                setting="run_output_bytes",
            )

    def log_is_full(self, step_id: str, log_bytes: int) -> dict[str, Any]:
        """The error that ends a run whose log is too long: a step may pass that by its own part."""
        limit = self.log_bytes
        message = (
            f"the log of the run has {log_bytes:,} bytes; it may have {limit:,} (setting run_log_bytes);"
            f" step {step_id!r} was not begun"
        )
        details = {"limit": "log", "value": limit, "setting": "run_log_bytes"}
        return {"code": "RUN_LIMIT", "message": message, **details}


def _refuse(message: str, **details: Any) -> NoReturn:
    raise StepFailure("RUN_LIMIT", message, may_retry=False, details=details)
