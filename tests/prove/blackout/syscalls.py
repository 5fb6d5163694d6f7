"""What a process did to its files, system call by system call, in order.

`strace` sees the calls of the very interpreter and SQLite that users have, in all their threads, and what it
has written down is complete: `record` has been told of every call that changes a file, and refuses those that
it cannot turn into a change. Nothing is preloaded, and nothing in the process knows of it.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.prove.blackout.disk import (
    Change,
    Create,
    Disk,
    Note,
    Remove,
    SyncBegun,
    SyncEnded,
    Truncate,
    Write,
)

UNDERSTOOD = (
    "open,openat,write,pwrite64,ftruncate,fsync,fdatasync,unlink,unlinkat,mkdir,mkdirat",
    "creat,writev,pwritev,pwritev2,truncate,fallocate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "sendfile,copy_file_range,splice,rmdir,io_submit,io_uring_enter",
)
"""Calls that become changes, and calls that would if anybody made them."""

LEFT_OUT = ("-shm", "-reserve")
"""Ends of names of files that are not recorded: they hold no data, and may be anything after a crash."""

LONGEST_S = 300
_CALL = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_FILE = re.compile(r"\d+<([^>]*)>")
_TEXT = re.compile(r'"([^"]*)"')
_RESULT = re.compile(r"\) += ")
_UNFINISHED = " <unfinished ...>"


def record(command: Sequence[str], *, root: Path, notes: Path, cwd: Path) -> list[Change]:
    """Runs the command; returns what it did below `root`, and what it wrote to `notes`.

    Raises RuntimeError without strace, or if the command fails.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise RuntimeError("a power cut needs `strace` to be proved; install it: apt-get install strace")
    log = notes.with_name("strace.txt")
    before = Disk(root)
    watch = [strace, "-f", "--seccomp-bpf", "-y", "-xx", "-s", "100000000", "-e", "signal=none"]
    watch += ["-e", f"trace={','.join(UNDERSTOOD)}", "-o", str(log)]
    done = subprocess.run(
        [*watch, *command], cwd=cwd, timeout=LONGEST_S, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[:3]} under strace ended with {done.returncode}: {done.stderr[-2000:]}")
    changes = []
    with log.open(encoding="ascii") as lines:
        for change in _Reader(root, notes, before).read(lines):
            before.apply(change)
            changes.append(change)
    return changes


class _Reader:
    def __init__(self, root: Path, notes: Path, disk: Disk) -> None:
        self._root = str(root)
        self._notes = str(notes)
        self._disk = disk
        self._begun: dict[str, str] = {}

    def read(self, lines: Iterator[str]) -> Iterator[Change]:
        for line in lines:
            match = _CALL.match(line.rstrip("\n"))
            if match is None:
                continue
            thread, resumed, name, rest = match.groups()
            if resumed:
                yield from self._ended(resumed, self._begun.pop(thread) + rest, int(thread))
            else:
                yield from self._started(name, rest, int(thread))
                if rest.endswith(_UNFINISHED):
                    self._begun[thread] = rest.removesuffix(_UNFINISHED)
                else:
                    yield from self._ended(name, rest, int(thread))

    def _started(self, name: str, rest: str, thread: int) -> Iterator[Change]:
        if name in ("fsync", "fdatasync") and self._is_ours(path := _path(_FILE, rest)):
            yield SyncBegun(path, thread)

    def _ended(self, name: str, rest: str, thread: int) -> Iterator[Change]:
        arguments, result = _RESULT.split(rest)[-2:]
        if result.startswith("-1"):
            # A sync that failed has begun all the same; SQLite must not have believed in it.
            assert name not in ("fsync", "fdatasync"), f"a sync failed: {result}"
            return
        match name:
            case "fsync" | "fdatasync":
                if self._is_ours(path := _path(_FILE, arguments)):
                    yield SyncEnded(path, thread)
            case "open" | "openat":
                if self._is_ours(path := _path(_FILE, result)):
                    yield from self._opened(path, arguments)
            case "pwrite64":
                if self._is_ours(path := _path(_FILE, arguments)):
                    yield Write(path, int(arguments.rpartition(", ")[2]), _written(arguments, result))
            case "write" if _path(_FILE, arguments) == self._notes:
                yield Note(_written(arguments, result))
            case "ftruncate":
                if self._is_ours(path := _path(_FILE, arguments)):
                    yield Truncate(path, int(arguments.rpartition(", ")[2]))
            case "unlink" | "unlinkat" | "mkdir" | "mkdirat":
                if self._is_ours(path := _path(_TEXT, arguments)):
                    yield Remove(path) if name.startswith("unlink") else Create(path, "folder")
            case _:
                paths = [_decoded(each) for each in _FILE.findall(arguments) + _TEXT.findall(arguments)]
                assert not any(map(self._is_ours, paths)), f"{name} of {paths[0]!r} is not understood"

    def _opened(self, path: str, arguments: str) -> Iterator[Change]:
        if "O_CREAT" in arguments and not self._disk.knows(path):
            yield Create(path, "file")
        elif "O_TRUNC" in arguments:
            yield Truncate(path, 0)

    def _is_ours(self, path: str) -> bool:
        return path == self._root or (path.startswith(f"{self._root}/") and not path.endswith(LEFT_OUT))


def _path(kind: re.Pattern[str], text: str) -> str:
    found = kind.search(text)
    return _decoded(found[1]) if found else ""


def _decoded(escaped: str) -> str:
    return bytes.fromhex(escaped.replace("\\x", "")).decode() if "\\x" in escaped else escaped


def _written(arguments: str, result: str) -> bytes:
    found = _TEXT.search(arguments)
    assert found is not None, f"strace has not written down what was written: {arguments[:200]}"
    return bytes.fromhex(found[1].replace("\\x", ""))[: int(result.split()[0])]
