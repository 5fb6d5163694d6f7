"""The event loop of a thread, for commands that have a server in this process."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from runglass.support.import_without_gc import loading

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal


@contextmanager
def open_portal() -> Iterator["BlockingPortal"]:
    """A portal to the event loop of a thread, until the block ends. Opened in the main thread.

    Ctrl-C comes once it is open: before that anyio would wait for a thread that nobody has told to end.
    """
    with loading():
        from anyio.from_thread import start_blocking_portal
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    with ExitStack() as stack:
        try:
            portal = stack.enter_context(start_blocking_portal())
        finally:
            signal.signal(signal.SIGINT, before)
        if pressed and callable(before):
            before(signal.SIGINT, None)
        yield portal
