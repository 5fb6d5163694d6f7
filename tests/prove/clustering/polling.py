"""Waiting for what nobody tells of."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], object], *, every_s: float = 0.01) -> None:
    """Returns when it holds."""
    while True:
        if holds():
            return
        await asyncio.sleep(every_s)


async def until_told(holds: Callable[[], Awaitable[object]], *, every_s: float = 0.01) -> None:
    """Returns when the answer is that it holds."""
    while True:
        if await holds():
            return
        await asyncio.sleep(every_s)
