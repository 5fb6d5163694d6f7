"""What must hold in every store that is opened after a power cut, whatever was lost.

The file is whole, events are those that were written, and the laws of every proof (`tests/laws`) hold of runs
and project. What of it has to be there is the business of `power.py`.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from runglass.store.base import Store
from runglass.store.records import Project, RunRecord
from runglass.store.sqlite.database_file import upgrade
from runglass.store.sqlite.store import SqliteStore
from tests.laws.law import require
from tests.laws.log import Log
from tests.laws.stored import (
    ALL,
    broken_as_a_whole,
    broken_by_itself,
    broken_in_project,
    listed_runs,
    read_whole,
)
from tests.prove.blackout.writer import BEFORE, PROJECT, SLUG, Note, append_name, checkpoint_of
from tests.prove.killing.snapshot import faults
from tests.records import new_run

AFTERWARDS = "run-afterwards"


class Laws:
    """The laws for one recording; `learn` comes first."""

    def __init__(self, notes: Iterable[Note]) -> None:
        self._digests = {note.does: note.digest for note in notes if note.does}
        self._runs = sorted({name.partition("@")[0] for name in self._digests if "@" in name})
        self._logs: dict[str, list[Log]] = {}
        """Of each run its log before the first event and after each."""

    async def learn(self, database: Path) -> None:
        """Takes the events from the database that nobody cut off; they must be those that were written."""
        async with SqliteStore(database, synchronous="NORMAL") as store:
            for run_id in self._runs:
                run = await store.run(run_id)
                assert run is not None, f"run {run_id!r} is not in the store that nobody cut off"
                events = await store.events(run.no, after=0, limit_bytes=ALL)
                self._logs[run_id] = [_log(run_id, events[:head]) for head in range(len(events) + 1)]
        for run_id, logs in self._logs.items():
            written, last = logs[-1].events, 0
            for head in range(1, len(written) + 1):
                digest = self._digests.get(append_name(run_id, head))
                if digest is not None:
                    found = hashlib.sha256(b"\n".join(written[last:head])).hexdigest()
                    assert found == digest, f"events {last + 1} to {head} of {run_id!r} are not as written"
                    last = head

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
            await _go_on(store)
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
                names |= {append_name(run_id, head) for head in range(run.head + 1)} & self._digests.keys()
                names |= {f"answer {run_id}"} if call.answer is not None else set()
        assert set(await listed_runs(store, project)) == logs.keys(), (
            "runs that nobody has made are in the list"
        )
        require(await broken_in_project(store, project, logs))
        return names

    async def _check_run(self, store: Store, run: RunRecord) -> Log:
        name = append_name(run.id, run.head)
        assert name in self._digests, f"run {run.id!r} stands inside of an append, at {run.head}"
        log = self._logs[run.id][run.head]
        require(broken_as_a_whole(log, await read_whole(store, run.id)))
        # With each append came a checkpoint.
        heads = [int(append.partition("@")[2]) for append in self._digests if append.startswith(f"{run.id}@")]
        expected = [checkpoint_of(head) for head in sorted(heads) if 0 < head <= run.head]
        found = [each.step_id for each in await store.checkpoints(run.no)]
        assert sorted(found) == sorted([] if run.ended else expected), f"{name} has checkpoints {found}"
        return log


def _log(run_id: str, events: Iterable[tuple[int, bytes]]) -> Log:
    """The log of a run that has come so far. Raises AssertionError where it breaks a law."""
    log = Log(run_id)
    require([lie for seq, data in events for lie in log.add(seq, data)])
    require(broken_by_itself(log))
    return log


async def _go_on(store: Store) -> None:
    """The store is as good as any: it takes another run."""
    project = await store.ensure_project("acme", "afterwards")
    flow = await store.put_draft(project.id, SLUG, name=None, capture=None, source=b"{}")
    run = new_run(project.id, flow.id, id=AFTERWARDS)
    assert (await store.create_run(run)).id == AFTERWARDS
