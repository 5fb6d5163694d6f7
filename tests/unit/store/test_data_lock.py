"""The lock on a database, as a process leaves it that was killed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from runglass.store.data_folder import exclusive

KILLED_WHILE_IT_BEGINS_A_PROCESS = """
import ctypes, os, signal, sys
from pathlib import Path
from runglass.store.data_folder import exclusive

with exclusive(Path(sys.argv[1])):
    # Of the system and not of Python, as the fork before an exec: what Python does in a fork is not done.
    if ctypes.CDLL(None).fork():
        os.kill(os.getpid(), signal.SIGKILL)
    # What is opened last is closed last as well, after the lock.
    os.dup(1)
    # Until the test ends it.
    os.read(0, 1)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_process_that_a_killed_one_had_just_begun_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "runglass.db"
    command = [sys.executable, "-c", KILLED_WHILE_IT_BEGINS_A_PROCESS, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        assert killed.wait() < 0
        stdin, stdout = killed.stdin, killed.stdout
        assert stdin is not None
        assert stdout is not None

        def end_it(seconds: float) -> None:
            stdin.close()
            assert stdout.read() == b"", "all that hold it are gone"

        # The lock is waited for in sleeps.
        monkeypatch.setattr(time, "sleep", end_it)
        with exclusive(database):
            assert stdin.closed
