"""A program that is run in place of this one: its terminal, its signals, its exit code."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from runglass.cli.terminal.output import complain

PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""What a shell ends with where it cannot run a program."""


def run_program(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs it to its end; its exit code, or 128 and the number of the signal that has ended it.

    It is a process group of its own, to which signals are passed on. Where this one has the terminal, the
    group has it meanwhile, so that Ctrl-C reaches the program once; Ctrl-Z stops both. Runs in the main
    thread.
    """
    groups: list[int] = []
    early: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        if groups:
            with suppress(OSError):
                os.killpg(groups[0], number)
        else:
            early.append(number)

    before = {
        number: signal.signal(number, pass_on)
        for number in PASSED_ON
        if signal.getsignal(number) != signal.SIG_IGN
    }
    terminal = _terminal()
    try:
        try:
            # Other processes do not inherit our stderr, which is the log's.
            process = subprocess.Popen(command, env=environment, process_group=0, stderr=sys.stderr.fileno())
        except OSError as error:
            complain(f"{command[0]!r} cannot be run: {error.strerror or error}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        if terminal is not None:
            _give(terminal, process.pid)
        groups.append(process.pid)
        for number in early:
            pass_on(number, None)
        while True:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            if terminal is not None:
                _stop_too(terminal, process.pid, os.WSTOPSIG(status))
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if terminal is not None:
            _give(terminal, os.getpgrp())
            os.close(terminal)
        for number, handler in before.items():
            signal.signal(number, handler)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _terminal() -> int | None:
    """The terminal, where whoever types there types for this process."""
    if not os.isatty(0):
        return None
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR)
        if os.tcgetpgrp(terminal) == os.getpgrp():
            return terminal
        os.close(terminal)
    return None


def _give(terminal: int, group: int) -> None:
    """Makes the group that of the terminal; one that has gone already gets nothing."""
    # Who is not that group would be stopped by this signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    with suppress(OSError):
        os.tcsetpgrp(terminal, group)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop_too(terminal: int, group: int, number: int) -> None:
    """Stops with the program until the shell lets both go on."""
    # It may have asked for the terminal just before it got it.
    if number not in (signal.SIGTTIN, signal.SIGTTOU) or os.tcgetpgrp(terminal) != group:
        _give(terminal, os.getpgrp())
        os.killpg(os.getpgrp(), signal.SIGSTOP)
        if os.tcgetpgrp(terminal) == os.getpgrp():
            _give(terminal, group)
    os.killpg(group, signal.SIGCONT)
