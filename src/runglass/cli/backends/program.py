"""A program that is run in place of this one: its terminal, its signals, its exit code."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from runglass.cli.terminal.output import complain

OF_TERMINALS = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
PASSED_ON = (*OF_TERMINALS, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""What a shell ends with where it cannot run a program."""


def run_program(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs it to its end; its exit code, or 128 and the number of the signal that has ended it.

    On a terminal it shares the process group of this one: what is typed there, Ctrl-C and Ctrl-Z among it,
    reaches both. Elsewhere it has a group of its own, to which signals are passed on. Runs in the main
    thread.
    """
    is_shared = os.isatty(0)
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        if not started:
            early.append(number)
        elif not (is_shared and number in OF_TERMINALS):
            # It may be gone, or of another user.
            with suppress(OSError):
                if is_shared:
                    started[0].send_signal(number)
                else:
                    os.killpg(started[0].pid, number)

    before = {
        number: signal.signal(number, pass_on)
        for number in PASSED_ON
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        # Other processes do not inherit our stderr, which is the log's.
        group = None if is_shared else 0
        try:
            process = subprocess.Popen(
                command, env=environment, process_group=group, stderr=sys.stderr.fileno()
            )
        except OSError as error:
            complain(f"{command[0]!r} cannot be run: {error.strerror or error}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        started.append(process)
        for number in early:
            pass_on(number, None)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
