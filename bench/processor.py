"""How long processes have kept the processor busy, as Linux counts it."""

import os
from pathlib import Path

from tests.process_guard import below

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def spent_s(*processes: int) -> float:
    """Seconds that these processes have used, with those below them, also of those that have ended."""
    every = {each for process in processes for each in (process, *below(process))}
    return sum(map(_ticks, every)) / TICKS_PER_S


def _ticks(process: int) -> int:
    """Its own, and those of its children that have ended."""
    try:
        fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        # It has ended meanwhile.
        return 0
    return sum(map(int, fields[11:15]))
