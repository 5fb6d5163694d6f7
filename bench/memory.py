"""What a process and its children hold in memory, as Linux counts it; peers use this file too."""

from pathlib import Path

from tests.process_guard import below

PROC = Path("/proc")


def own_memory() -> int:
    """Bytes of this process that lie in memory, pages that it shares with others included."""
    return _status_bytes("self", "VmRSS")


def own_peak() -> int:
    """The most that `own_memory` has ever been."""
    return _status_bytes("self", "VmHWM")


def peak(process: int) -> int:
    """The most bytes of the process that ever lay in memory."""
    return _status_bytes(str(process), "VmHWM")


def tree_memory(process: int) -> int:
    """Bytes that the process holds, and those that the processes below it have for themselves."""
    return _status_bytes(str(process), "VmRSS") + sum(private_memory(each) for each in below(process))


def private_memory(process: int) -> int:
    """Bytes that the process shares with no other."""
    lines = (PROC / str(process) / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _status_bytes(process: str, name: str) -> int:
    for line in (PROC / process / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the system does not say {name} of process {process}")
