"""The time limit of one attempt."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def within(limit: asyncio.Timeout, timeout_ms: int | None) -> AsyncIterator[None]:
    """Bounds the block by the step's time limit, if it has one."""
    async with limit:
        if timeout_ms is not None:
            limit.reschedule(asyncio.get_running_loop().time() + timeout_ms / 1000)
        yield
