"""Ctrl-C while a command runs: an error like any other, so that the command can end its work in order.

Before and after that, `end_at_once` handles it. Only for the entry point of a process.
"""

import signal
import sys
import threading

from runglass.cli import end_at_once

AGAIN_S = 0.01


class Interruptible:
    """A block in which Ctrl-C is a KeyboardInterrupt, where it would have ended the process."""

    def __init__(self) -> None:
        self._ends_at_once = signal.getsignal(signal.SIGINT) is end_at_once

    def __enter__(self) -> None:
        if self._ends_at_once:
            sys.unraisablehook = _unraisable
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *exc: object) -> None:
        if self._ends_at_once:
            signal.signal(signal.SIGINT, end_at_once)
            sys.unraisablehook = sys.__unraisablehook__


def is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C caused an error. Imports, and click around a command, raise another one from it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__
    return False


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # Python has callbacks that cannot raise, in imports for one; the interrupt is sent again after them.
        # As a signal to this thread, which ends a wait as well.
        threading.Timer(AGAIN_S, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)
