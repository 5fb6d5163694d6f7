"""How long processes have kept the processor busy, as Linux counts it."""

import os
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def spent_s(*processes: int) -> float:
    """Seconds that these processes have used, with those below them, also of those that have ended."""
    stats = list(_stats())
    below = set(processes)
    while more := {process for process, parent, _, _ in stats if parent in below} - below:
        below |= more
    # What a process counts of its children is of those that have ended.
    ticks = sum(own + ended for process, _, own, ended in stats if process in below)
    return ticks / TICKS_PER_S


def _stats() -> Iterable[tuple[int, int, int, int]]:
    """Each process with its parent, its own ticks, and those of the children that have ended."""
    for folder in PROC.glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:
            # It has ended meanwhile.
            continue
        fields = text.rpartition(")")[2].split()
        parent, (user, system, of_user, of_system) = int(fields[1]), map(int, fields[11:15])
        yield int(folder.name), parent, user + system, of_user + of_system
