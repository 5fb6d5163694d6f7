"""Ctrl-C while a run is watched: once stops watching and leaves the run alone, twice cancels it."""

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runglass.cli.exit_codes import Exit
from runglass.cli.terminal.output import complain, note
from runglass.errors import RunglassError

if TYPE_CHECKING:
    from runglass.cli.backends.run_watcher import WatchedRun

T = TypeVar("T")

GRACE_S = 2.0
"""Seconds in which a second Ctrl-C cancels the run."""


async def until_interrupted(run: "WatchedRun", watching: Coroutine[Any, Any, T]) -> T:
    """The result of `watching`, or its error. Ctrl-C cancels `watching` and raises click's Exit."""
    with _ctrl_c() as pressed:
        watch = asyncio.ensure_future(watching)
        press = asyncio.create_task(pressed.wait())
        try:
            await asyncio.wait({watch, press}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            press.cancel()
            watch.cancel()
            await asyncio.wait({watch, press})
        if not watch.cancelled():
            return watch.result()
        if not pressed.is_set():
            raise asyncio.CancelledError
        pressed.clear()
        is_pressed_again = await _offer_cancel(run, pressed)
    # The handler is removed by now, so one more Ctrl-C ends a command that waits for a server in vain.
    if is_pressed_again:
        await _cancel(run)
    raise click.exceptions.Exit(Exit.INTERRUPTED)


async def _offer_cancel(run: "WatchedRun", pressed: asyncio.Event) -> bool:
    if run.run_id is None:
        note("stopped before the server had named a run; if one has begun, `runglass runs list` shows it")
        return False
    note(f"the run goes on without you; Ctrl-C again within {GRACE_S:g} s cancels it")
    note(f"follow it: runglass runs tail {run.run_id}")
    note(f"cancel it: runglass runs cancel {run.run_id}")
    try:
        return await asyncio.wait_for(pressed.wait(), GRACE_S)
    except TimeoutError:
        return False


async def _cancel(run: "WatchedRun") -> None:
    try:
        await run.cancel()
    except RunglassError as error:
        complain(f"the run could not be cancelled: {error}")
    else:
        note(f"run {run.run_id} is cancelled")


@contextmanager
def _ctrl_c() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C sets, where this thread of this process receives signals."""
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    is_main_thread = threading.current_thread() is threading.main_thread()
    # A shell starts its background jobs with the signal ignored.
    if not is_main_thread or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield pressed
        return
    try:
        loop.add_signal_handler(signal.SIGINT, pressed.set)
    except NotImplementedError:  # on Windows Ctrl-C ends the command, and the run goes on
        yield pressed
        return
    try:
        yield pressed
    finally:
        loop.remove_signal_handler(signal.SIGINT)
