"""A disk whose power can be cut: what a process did to it, and which files it may hold afterwards.

The model is stricter than most file systems. What was synced stays. Of what was not, each sector of each
write may be there or not, in any combination; a file may have got its new length without the data; a name
given or taken away is safe only once its folder has been synced, and a folder only once its parent has.
Whose files these are is not known here.

What was done is told by `strace`, system call by system call: it sees the calls of the very interpreter and
SQLite that users have, in all their threads, and what it has written down is complete. `record` has been told
of every call that changes a file, and refuses those that it cannot turn into a change. Nothing is preloaded,
and nothing in the process knows of it.
"""

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

SECTOR = 512


class Write(NamedTuple):
    path: str
    offset: int
    data: bytes


class Truncate(NamedTuple):
    path: str
    size: int


class Create(NamedTuple):
    path: str
    kind: Literal["file", "folder"]


class Remove(NamedTuple):
    path: str


class SyncBegun(NamedTuple):
    """A file or folder whose sync has been asked for, by thread `by`."""

    path: str
    by: int


class SyncEnded(NamedTuple):
    """What was written before the sync began is safe from here on."""

    path: str
    by: int


class Note(NamedTuple):
    """A line that the process wrote about itself."""

    text: bytes


Change = Write | Truncate | Create | Remove | SyncBegun | SyncEnded | Note


class _Node:
    """A file, under whatever name, or a folder."""

    def __init__(self, kind: Literal["file", "folder"], content: bytes = b"") -> None:
        self.kind = kind
        self.safe = bytearray(content)
        self.pending: list[Write | Truncate] = []
        self.synced = 0

    def sync(self, until: int) -> None:
        """Makes the first `until` changes of this node's life safe."""
        more = until - self.synced
        if more > 0:
            for change in self.pending[:more]:
                _apply(self.safe, change, b"\0")
            del self.pending[:more]
            self.synced = until

    def after_the_cut(self, chance: random.Random) -> bytes:
        content = bytearray(self.safe)
        if not self.pending:
            return bytes(content)
        whole = self.content()
        cut = chance.randrange(len(self.pending) + 1)
        fill = chance.choice([b"\0", bytes([chance.randrange(1, 256)])])
        match chance.choice(["all", "none", "sectors", "first", "last"]):
            case "all":
                return whole
            case "none":
                pass
            case "sectors":
                share = chance.choice([0.1, 0.5, 0.9])
                for change in self.pending:
                    _apply_part(content, change, fill, chance, share)
            case "first":
                for change in self.pending[:cut]:
                    _apply(content, change, fill)
                for change in self.pending[cut : cut + 1]:
                    _apply_part(content, change, fill, chance, 0.5)
            case _:
                for change in self.pending[cut:]:
                    _apply(content, change, fill)
        if chance.random() < 0.5:
            # The length has arrived, the data has not.
            content += fill * (len(whole) - len(content))
        return bytes(content)

    def content(self) -> bytes:
        content = bytearray(self.safe)
        for change in self.pending:
            _apply(content, change, b"\0")
        return bytes(content)


class Disk:
    """Everything below the folder `root`, which itself is safe, with the files that are there now."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._safe = {
            str(path): _Node("file", path.read_bytes()) if path.is_file() else _Node("folder")
            for path in (root, *root.rglob("*"))
        }
        self._names = dict(self._safe)
        self._renamed: list[tuple[str, _Node | None]] = []
        self._syncs: dict[int, tuple[_Node, int, int]] = {}

    def apply(self, change: Change) -> None:
        match change:
            case Write() | Truncate():
                self._names[change.path].pending.append(change)
            case Create():
                self._names[change.path] = node = _Node(change.kind)
                self._renamed.append((change.path, node))
            case Remove():
                del self._names[change.path]
                self._renamed.append((change.path, None))
            case SyncBegun():
                node = self._names[change.path]
                self._syncs[change.by] = (node, node.synced + len(node.pending), len(self._renamed))
            case SyncEnded():
                node, until, renamed = self._syncs.pop(change.by)
                node.sync(until)
                self._keep_names(change.path, renamed)

    def _keep_names(self, folder: str, until: int) -> None:
        later = []
        for number, (path, node) in enumerate(self._renamed):
            if number >= until or str(PurePosixPath(path).parent) != folder:
                later.append((path, node))
            elif node is None:
                self._safe.pop(path, None)
            else:
                self._safe[path] = node
        self._renamed = later

    def knows(self, path: str) -> bool:
        return path in self._names

    def after_the_cut(self, chance: random.Random) -> dict[str, bytes]:
        """The files that are there when the power is back, by their path below the root."""
        names = dict(self._safe)
        share = chance.choice([0.0, 0.5, 1.0])
        for path, node in self._renamed:
            if chance.random() < share:
                if node is None:
                    names.pop(path, None)
                else:
                    names[path] = node
        return self._files(names, lambda node: node.after_the_cut(chance))

    def now(self) -> dict[str, bytes]:
        return self._files(self._names, _Node.content)

    def _files(self, names: dict[str, _Node], content: Callable[[_Node], bytes]) -> dict[str, bytes]:
        return {
            path[len(self._root) + 1 :]: content(node)
            for path, node in sorted(names.items())
            if node.kind == "file" and self._is_reachable(path, names)
        }

    def _is_reachable(self, path: str, names: dict[str, _Node]) -> bool:
        while path != self._root:
            if path not in names:
                return False
            path = str(PurePosixPath(path).parent)
        return True


def _apply(content: bytearray, change: Write | Truncate, fill: bytes) -> None:
    if isinstance(change, Truncate):
        content += b"\0" * (change.size - len(content))
        del content[change.size :]
        return
    content += fill * (change.offset - len(content))
    content[change.offset : change.offset + len(change.data)] = change.data


def _apply_part(
    content: bytearray, change: Write | Truncate, fill: bytes, chance: random.Random, share: float
) -> None:
    if isinstance(change, Truncate):
        if chance.random() < share:
            _apply(content, change, fill)
        return
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        until = min(end, (start // SECTOR + 1) * SECTOR)
        if chance.random() < share:
            piece = change.data[start - change.offset : until - change.offset]
            _apply(content, Write(change.path, start, piece), fill)
        start = until


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
