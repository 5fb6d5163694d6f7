"""Ctrl-C while a command goes on: an error like any other, so that what goes on can be ended in order.

Before and after that, `end_at_once` takes it. Only for whoever owns the process.
"""

import _thread
import signal
import sys
import threading

from runglass.cli import end_at_once

AGAIN_S = 0.01


class Interruptible:
    """A block in which Ctrl-C is a KeyboardInterrupt, where it would have ended the process."""

    def __init__(self) -> None:
        self._was_quiet = signal.getsignal(signal.SIGINT) is end_at_once

    def __enter__(self) -> None:
        if self._was_quiet:
            sys.unraisablehook = _unraisable
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *exc: object) -> None:
        if self._was_quiet:
            signal.signal(signal.SIGINT, end_at_once)
            sys.unraisablehook = sys.__unraisablehook__


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an error comes of Ctrl-C. In an import Python may raise another one on top of that."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__
    return False


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # It came in a callback that cannot raise, as Python has them in imports: once more, after that.
        threading.Timer(AGAIN_S, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)
