"""Work on what callers send and the store holds, kept off the event loop where it is large."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

LARGE_BYTES = 256 * 1024
"""What has up to this size is worked on at once: that takes a few milliseconds, 25 at the very worst."""


async def aside(work: Callable[[], Result], *, size_bytes: int) -> Result:
    """The result of `work`, done in a thread if it is about so much that everybody else would wait for it."""
    return work() if size_bytes <= LARGE_BYTES else await asyncio.to_thread(work)
