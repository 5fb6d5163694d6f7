"""`prove power`: whenever the power goes, the database is whole, and what was acknowledged is in it.

A process fills a store while every system call that changes a file is written down. At each point between two
of these calls the power is cut, over and over: the files that a disk may hold then (`disk.py`) are opened by
the store as after any restart, and every law of the log is checked. Scenarios: `synchronous` FULL and NORMAL,
checkpoints that are rare and that never end, a new database and one from an older version.

`strace` rather than a file system of our own or a SQLite extension: it needs no privileges and no build, and
what it watches is the interpreter, the SQLite and the store that users have.
"""

import asyncio
import hashlib
import logging
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from runglass.errors import RunglassError
from runglass.store.base import Store
from runglass.store.records import Project, RunRecord
from runglass.store.sqlite.database_file import upgrade
from runglass.store.sqlite.migrations import migrations
from runglass.store.sqlite.reserve import RESERVE_BYTES
from runglass.store.sqlite.store import SqliteStore
from tests.laws.law import require
from tests.laws.log import Log
from tests.laws.stored import (
    broken_as_a_whole,
    broken_by_itself,
    broken_in_project,
    listed_runs,
    read_run,
    read_whole,
)
from tests.prove.blackout import disk, writer
from tests.prove.blackout.writer import BEFORE, PROJECT, SLUG, Note, append_name
from tests.prove.killing.laws import faults
from tests.records import new_run

AFTERWARDS = "run-afterwards"


class Laws:
    """The laws for one recording; `learn` comes first."""

    def __init__(self, notes: Iterable[Note]) -> None:
        self._written = {note.does for note in notes if note.does}
        self._runs = sorted({name.partition("@")[0] for name in self._written if "@" in name})
        self._logs: dict[str, list[Log]] = {}
        """Of each run its log before the first event and after each."""

    async def learn(self, database: Path) -> None:
        """Takes the events from the database that nobody cut off."""
        async with SqliteStore(database, synchronous="NORMAL") as store:
            for run_id in self._runs:
                _, events, _ = await read_run(store, run_id)
                self._logs[run_id] = [_log(run_id, events[:head]) for head in range(len(events) + 1)]

    async def check(self, database: Path) -> frozenset[str]:
        """Upgrades and opens the database, and returns the names of all writes that are in it."""
        upgrade(database, with_copy=False)
        async with SqliteStore(database, synchronous="NORMAL") as store:
            require(await faults(store))
            names = set()
            project = await store.find_project(*PROJECT)
            if project is not None:
                names.add("project")
                names |= await self._check_project(store, project)
            if await store.find_project(*BEFORE) is not None:
                names.add("before")
            # The store is as good as any: it takes another run.
            project = await store.ensure_project("acme", "afterwards")
            flow = await store.put_draft(project.id, SLUG, name=None, capture=None, source=b"{}")
            run = new_run(project.id, flow.id, id=AFTERWARDS)
            assert (await store.create_run(run)).id == AFTERWARDS
        return frozenset(names)

    async def _check_project(self, store: Store, project: Project) -> set[str]:
        names = set()
        flow = await store.find_flow(project.id, SLUG)
        if flow is not None:
            assert await store.flow_source(flow.id, 0) == b"{}", "the flow has no draft"
            names.add("flow")
        logs = {}
        for run_id in self._runs:
            run = await store.run(run_id)
            call = await store.call(project.id, run_id)
            assert (run is None) == (call is None), f"run {run_id!r} and its call were not stored together"
            if run is not None and call is not None:
                logs[run_id] = await self._check_run(store, run)
                names |= {append_name(run_id, head) for head in range(run.head + 1)} & self._written
                names |= {f"answer {run_id}"} if call.answer is not None else set()
        assert set(await listed_runs(store, project)) == logs.keys(), (
            "runs that nobody has made are in the list"
        )
        require(await broken_in_project(store, project, logs))
        return names

    async def _check_run(self, store: Store, run: RunRecord) -> Log:
        name = append_name(run.id, run.head)
        assert name in self._written, f"run {run.id!r} stands inside of an append, at {run.head}"
        log = self._logs[run.id][run.head]
        require(broken_as_a_whole(log, await read_whole(store, run.id)))
        # With the end of each step came a checkpoint.
        expected = [] if run.ended else sorted(address.step_id for address in log.completed)
        found = sorted(each.step_id for each in await store.checkpoints(run.no))
        assert found == expected, f"{name} has checkpoints {found}, not {expected}"
        return log


def _log(run_id: str, events: Iterable[tuple[int, bytes]]) -> Log:
    """The log of a run that has come so far. Raises AssertionError where it breaks a law."""
    log = Log(run_id)
    require([lie for seq, data in events for lie in log.add(seq, data)])
    require(broken_by_itself(log))
    return log


ROOT = Path(__file__).parents[2]
OLD_SCHEMA = 2
CUTS = 2
DATABASE = "new/data/db"
"""Below the root, in folders that the store has to make."""
WAL = f"{DATABASE}-wal"


class Scenario(NamedTuple):
    synchronous: Literal["FULL", "NORMAL"]
    checkpoint_pages: int
    starts_from: Literal["nothing", "an older version"]

    def __str__(self) -> str:
        return f"{self.synchronous}, checkpoint at {self.checkpoint_pages} pages, from {self.starts_from}"


SCENARIOS = (
    Scenario("FULL", 150, "nothing"),
    Scenario("FULL", 12, "an older version"),
    Scenario("NORMAL", 12, "nothing"),
    Scenario("NORMAL", 150, "an older version"),
)


CONTROL = SCENARIOS[1]


class Lie(AssertionError):
    """A store that was opened after a cut is not as it must be; `files` are what was opened."""

    def __init__(self, message: str, files: dict[str, bytes]) -> None:
        super().__init__(message)
        self.files = files


def power(commits: int = 240, *, seed: int | None = None) -> list[str]:
    """A line for each scenario, `commits` appends in all, a second for each. Raises AssertionError for a lie.

    The same seed gives the same writes and the same chances, but threads may take turns in another order: a
    disk that makes the store lie is kept.
    """
    seed = random.randrange(1_000_000) if seed is None else seed
    # Each of thousands of disks from an older version would tell that it is upgraded.
    logging.getLogger("runglass.store.sqlite.database_file").setLevel(logging.ERROR)
    report = []
    for scenario in SCENARIOS:
        appends = max(20, commits // len(SCENARIOS))
        started_s = time.monotonic()
        memory = Path("/dev/shm")
        place = memory if memory.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="runglass-power-", dir=place) as name:
            folder = Path(name).resolve()
            changes = _record(folder, scenario, appends, seed)
            try:
                tried = asyncio.run(_Proof(folder, scenario, seed, changes).run())
            except Lie as lie:
                kept = Path(tempfile.mkdtemp(prefix="runglass-power-cut-"))
                _lay_out(lie.files, kept)
                raise AssertionError(f"power, seed {seed}: {lie}; the disk is kept in {str(kept)!r}") from lie
            report.append(f"power, seed {seed}: {tried}, {time.monotonic() - started_s:.0f} s; no lie")
            if scenario == CONTROL:
                report += [_control(folder, seed, changes, left_out) for left_out in (WAL, DATABASE)]
    return report


def _control(folder: Path, seed: int, changes: Sequence[disk.Change], left_out: str) -> str:
    """The proof would see a store that syncs too little: without the syncs of one file there is a lie."""
    fewer = [
        change
        for change in changes
        if not (isinstance(change, disk.SyncBegun | disk.SyncEnded) and change.path.endswith(left_out))
    ]
    try:
        asyncio.run(_Proof(folder, CONTROL, seed, fewer).run())
    except Lie as lie:
        return f"power, seed {seed}: control, {Path(left_out).name!r} is never synced: {lie}"
    raise AssertionError(f"power, seed {seed}: no cut shows that {left_out!r} is never synced")


def _record(folder: Path, scenario: Scenario, appends: int, seed: int) -> list[disk.Change]:
    root, start, notes = folder / "root", folder / "start", folder / "notes"
    root.mkdir()
    if scenario.starts_from == "an older version":
        (root / DATABASE).parent.mkdir(parents=True)
        with closing(sqlite3.connect(root / DATABASE)) as old:
            for migration in migrations()[:OLD_SCHEMA]:
                old.executescript(migration.sql)
            old.execute(f"PRAGMA user_version = {OLD_SCHEMA}")
            old.execute("INSERT INTO project (org, name) VALUES (?, ?)", BEFORE)
            old.commit()
    shutil.copytree(root, start)
    settings = writer.Settings(
        database=str(root / DATABASE),
        notes=str(notes),
        synchronous=scenario.synchronous,
        checkpoint_pages=scenario.checkpoint_pages,
        appends=appends,
        seed=seed,
    )
    command = [sys.executable, "-m", "tests.prove.blackout.writer", msgspec.json.encode(settings).decode()]
    changes = disk.record(command, root=root, notes=notes, cwd=ROOT)
    # The start takes the place of the root: names in `changes` are those of the root.
    root.rename(folder / "end")
    start.rename(root)
    return changes


class _Proof:
    """One recording, replayed with a cut at each of its points."""

    def __init__(self, folder: Path, scenario: Scenario, seed: int, changes: Sequence[disk.Change]) -> None:
        self._folder = folder
        self._scenario = scenario
        self._changes = changes
        self._laws = Laws(note for change in changes if (note := _note(change)))
        self._disk = disk.Disk(folder / "root")
        self._chance = random.Random(seed)
        self._acknowledged: list[str] = ["before"] if scenario.starts_from == "an older version" else []
        # How many acknowledgements had come when a write was asked for.
        self._come_before: dict[str, int] = {}
        self._checked: dict[bytes, frozenset[str]] = {}
        self._cuts = self._lossy = self._syncs = self._checkpoints = self._restarts = 0

    async def run(self) -> str:
        """What was tried, for the report. Raises Lie."""
        left = disk.Disk(self._folder / "end").now()
        await self._laws.learn(self._laid_out(left))
        for number, change in enumerate(self._changes):
            await self._cut(number)
            self._apply(change)
        recorded = self._disk.now()
        differ = {
            path
            for path in left.keys() | recorded.keys()
            if not path.endswith(disk.LEFT_OUT) and left.get(path) != recorded.get(path)
        }
        assert not differ, f"what was recorded does not add up to the files that were left: {differ}"
        await self._cut(len(self._changes))
        assert self._checkpoints > 0, "no checkpoint was recorded: make more commits"
        return (
            f"{self._scenario}: {len(self._acknowledged)} writes acknowledged, {self._syncs} syncs,"
            f" {self._checkpoints} of them of the database, {self._restarts} restarts of the WAL;"
            f" {self._cuts} cuts at {len(self._changes)} points, {len(self._checked)} different disks;"
            f" {self._lossy} cuts cost the newest writes"
        )

    def _apply(self, change: disk.Change) -> None:
        self._disk.apply(change)
        note = _note(change)
        if note is not None and note.does:
            self._come_before[note.does] = len(self._acknowledged)
        elif note is not None:
            self._acknowledged.append(note.done)
        match change:
            case disk.SyncEnded(path=path):
                self._syncs += 1
                self._checkpoints += path.endswith(DATABASE)
            # The head of the log is written when it is made, and again whenever it starts from the beginning.
            case disk.Write(path=path, offset=0):
                self._restarts += path.endswith(WAL)
            case disk.Create(path=path):
                self._restarts -= path.endswith(WAL)

    async def _cut(self, number: int) -> None:
        for _ in range(CUTS):
            self._cuts += 1
            files = self._disk.after_the_cut(self._chance)
            key = hashlib.sha256(msgspec.msgpack.encode(files)).digest()
            try:
                if key not in self._checked:
                    self._checked[key] = await self._laws.check(self._laid_out(files))
                self._check_acknowledged(self._checked[key])
            except (AssertionError, RunglassError, sqlite3.Error) as error:
                point = f"point {number} of {len(self._changes)}"
                raise Lie(f"{self._scenario}: after a cut at {point}: {error}", files) from error

    def _check_acknowledged(self, names: frozenset[str]) -> None:
        """At FULL nothing acknowledged is missing; at NORMAL what is missing is all that came last."""
        needed = max((self._come_before.get(name, 0) for name in names), default=0)
        if self._scenario.synchronous == "FULL":
            needed = len(self._acknowledged)
        missing = [name for name in self._acknowledged[:needed] if name not in names]
        assert not missing, f"acknowledged, but lost: {missing[:10]}"
        self._lossy += len(names) < len(self._come_before)

    def _laid_out(self, files: dict[str, bytes]) -> Path:
        folder = self._folder / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _lay_out(files, folder)
        if DATABASE in files and self._chance.random() < 0.5:
            # Shared memory is never synced: a disk may hold whatever once was in it.
            (folder / f"{DATABASE}-shm").write_bytes(self._chance.randbytes(32_768))
        # Neither is the reserve, which databases of older versions lack. Mostly whole: to make it takes time.
        (reserve_bytes,) = self._chance.choices([None, 0, 4096, RESERVE_BYTES], weights=[1, 1, 1, 9])
        if DATABASE in files and self._scenario.starts_from == "nothing" and reserve_bytes is not None:
            with (folder / f"{DATABASE}-reserve").open("wb") as reserve:
                reserve.truncate(reserve_bytes)
        return folder / DATABASE


def _lay_out(files: dict[str, bytes], folder: Path) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        # As the store had made it: it complains of files that others may read.
        (folder / path).chmod(0o600)


def _note(change: disk.Change) -> Note | None:
    return msgspec.json.decode(change.text, type=Note) if isinstance(change, disk.Note) else None
