"""Stand-ins that tests give to the engine."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from typing import Any, ParamSpec

from runglass.engine.models.model_types import ModelRequest, RequestObserver
from runglass.engine.models.request_parser import as_given
from tests.prove.simulating.virtual import VirtualLoop

CRASH_RETRIES = 3
LEASE_S = 10.0
"""The limit of takeovers and the lease of engines in tests."""
LONGEST_S = 5000.0
"""No test goes on for longer in virtual time, where a poll would not end."""
Given = ParamSpec("Given")


async def send(request: ModelRequest, observer: RequestObserver | None) -> None:
    """Tells the observer that the request goes out, as models do."""
    if observer is not None:
        await observer.sent(partial(as_given, request), 0)


class VirtualClock:
    """A clock on which a sleep takes no time but moves the time on."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._elapsed_s)

    def monotonic_s(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self._elapsed_s += seconds
        await asyncio.sleep(0)

    def set_back(self, seconds: float) -> None:
        self._elapsed_s -= seconds


def in_virtual_time(test: Callable[Given, Coroutine[Any, Any, None]]) -> Callable[Given, None]:
    """Runs an asyncio test on a loop whose timers take no time: the next is due when all wait.

    So a sleep lasts until all others wait. Nothing may go on beside the loop, in threads or over the network.
    """

    @wraps(test)
    def run(*args: Given.args, **named: Given.kwargs) -> None:
        with asyncio.Runner(loop_factory=partial(VirtualLoop, longest_s=LONGEST_S)) as runner:
            runner.run(test(*args, **named))

    return run


async def let_time_pass(seconds: float = 1e-6) -> None:
    """In virtual time: this much of it passes, so that whoever need not wait for longer has gone on."""
    assert isinstance(asyncio.get_running_loop(), VirtualLoop)
    await asyncio.sleep(seconds)
