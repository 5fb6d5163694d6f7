"""The lock on a database, as a process leaves it that was killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from runglass.store.data_lock import exclusive

KILLED_WHILE_IT_BEGINS_A_PROCESS = """
import ctypes, os, signal, sys, time
from pathlib import Path
from runglass.store.data_lock import exclusive

with exclusive(Path(sys.argv[1])):
    # Of the system and not of Python, as the fork before an exec: what Python does in a fork is not done.
    if ctypes.CDLL(None).fork():
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_process_that_a_killed_one_had_just_begun_keeps_nobody_out(tmp_path: Path) -> None:
    database = tmp_path / "runglass.db"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_IT_BEGINS_A_PROCESS, database],
        check=False,
        timeout=30,
    )
    assert killed.returncode < 0
    with exclusive(database):
        pass
