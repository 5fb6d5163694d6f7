"""The signals that ask a process to stop, as an event of its loop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGTERM


@contextmanager
def stop_signal() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; after the block, a further one ends the process.

    In the main thread, which gets the signals.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signal in (SIGINT, SIGTERM):
        loop.add_signal_handler(signal, stop.set)
    try:
        yield stop
    finally:
        for signal in (SIGINT, SIGTERM):
            loop.remove_signal_handler(signal)
