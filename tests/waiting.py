"""Waiting for what nobody tells of."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(found: Callable[[], T | None]) -> T:
    """What is found, once that is something; the test's own limit of time ends the wait."""
    while not (it := found()):
        time.sleep(0.01)
    return it


async def until(holds: Callable[[], object], *, every_s: float = 0.01) -> None:
    """Returns when it holds, or the answer awaited is that it does; lets the event loop go on meanwhile."""
    while True:
        told = holds()
        if isinstance(told, Awaitable):
            told = await told
        if told:
            return
        await asyncio.sleep(every_s)
