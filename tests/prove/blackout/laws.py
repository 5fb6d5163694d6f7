"""What must hold in every store that is opened after a power cut, whatever was lost.

The laws: the file is whole, seqs are 1, 2, 3 … up to the head, events are those that were written, and run
row, step attempts, checkpoints, request and spending are what follows from them. What of it has to be there
is the business of `power.py`.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from runglass.log.events import decode_event
from runglass.log.fold import RunFold, fold
from runglass.log.trace import TERMINAL, RunSummary
from runglass.store.base import Store
from runglass.store.records import Project, RunRecord, StepRow
from runglass.store.sqlite.database_file import upgrade
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.query import RunQuery
from tests.prove.blackout.writer import BEFORE, PROJECT, SLUG, Note, append_name, step_rows
from tests.records import new_run, open_trace

EVERYTHING = 1 << 40
AFTERWARDS = "run-afterwards"


class _Moment(NamedTuple):
    """What the first events of a run add up to."""

    summary: bytes
    status: str
    rows: list[StepRow]


class Laws:
    """The laws for one recording; `learn` comes first."""

    def __init__(self, notes: Iterable[Note]) -> None:
        self._digests = {note.does: note.digest for note in notes if note.does}
        self._runs = sorted({name.partition("@")[0] for name in self._digests if "@" in name})
        self._logs: dict[str, list[bytes]] = {}
        self._moments: dict[str, list[_Moment]] = {}

    async def learn(self, database: Path) -> None:
        """Takes the events from the database that nobody cut off; they must be those that were written."""
        async with SqliteStore(database, synchronous="NORMAL") as store:
            for run_id in self._runs:
                run = await store.run(run_id)
                assert run is not None, f"run {run_id!r} is not in the store that nobody cut off"
                log = await store.events(run.no, after=0, limit_bytes=EVERYTHING)
                self._logs[run_id] = [data for _, data in log]
                self._moments[run_id] = list(_moments(run_id, run.flow_id, self._logs[run_id]))
        for run_id, events in self._logs.items():
            last = 0
            for head in range(1, len(events) + 1):
                digest = self._digests.get(append_name(run_id, head))
                if digest is not None:
                    found = hashlib.sha256(b"\n".join(events[last:head])).hexdigest()
                    assert found == digest, f"events {last + 1} to {head} of {run_id!r} are not as written"
                    last = head

    async def check(self, database: Path) -> frozenset[str]:
        """Upgrades and opens the database, and returns the names of all writes that are in it."""
        upgrade(database, with_copy=False)
        async with SqliteStore(database, synchronous="NORMAL") as store:
            verdict = await store.connections.read(lambda db: db.execute("PRAGMA integrity_check").fetchall())
            assert verdict == [("ok",)], f"the database is corrupt: {verdict}"
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
        heads = {}
        for run_id in self._runs:
            run = await store.run(run_id)
            call = await store.call(project.id, run_id)
            assert (run is None) == (call is None), f"run {run_id!r} and its call were not stored together"
            if run is not None and call is not None:
                await self._check_run(store, run)
                heads[run_id] = run.head
                names |= {append_name(run_id, head) for head in range(run.head + 1)} & self._digests.keys()
                names |= {f"answer {run_id}"} if call.answer is not None else set()
        listed = (await store.runs(project.id, RunQuery(), limit=100_000)).runs
        ids = {msgspec.json.decode(each.summary, type=RunSummary).id for each in listed}
        assert ids == heads.keys(), f"the list of runs differs from the runs: {ids ^ heads.keys()}"
        # Each append spent as much as it had events: commits are whole across runs and tables.
        assert project.spent_usd == sum(heads.values()), f"{project.spent_usd} spent, heads are {heads}"
        return names

    async def _check_run(self, store: Store, run: RunRecord) -> None:
        name = append_name(run.id, run.head)
        assert name in self._digests, f"run {run.id!r} stands inside of an append, at {run.head}"
        events = await store.events(run.no, after=0, limit_bytes=EVERYTHING)
        assert [seq for seq, _ in events] == list(range(1, run.head + 1)), f"the log of {name} has a gap"
        assert [data for _, data in events] == self._logs[run.id][: run.head], f"{name} has other events"
        moment = self._moments[run.id][run.head]
        assert run.status == moment.status, f"{name} is {run.status}, by its events {moment.status}"
        latest = {row.position: row for row in moment.rows}
        kept = await open_trace(store, run.id)
        assert (kept.run.summary, [data for _, data in kept.steps]) == (
            moment.summary,
            [row.data for row in latest.values()],
        ), f"the trace of {name} is not the fold of its events"
        for step_id in {row.step_id for row in moment.rows}:
            expected = [row for row in moment.rows if row.step_id == step_id]
            assert await store.attempts(run.no, step_id) == expected, (
                f"{name} has other attempts of {step_id}"
            )
        ended = run.status in TERMINAL
        assert (await store.request(run.no) is None) == ended, f"{name} and its request disagree"
        assert (await store.checkpoints(run.no) == []) == (ended or run.head == 0), (
            f"{name} and its checkpoints disagree"
        )


def _moments(run_id: str, flow_id: str, events: Iterable[bytes]) -> Iterable[_Moment]:
    """The run before its first event and after each."""
    state = RunFold(RunSummary(id=run_id, flow_id=flow_id, status="pending", trigger_type="api"))
    rows: dict[tuple[int, int], StepRow] = {}
    yield _Moment(msgspec.json.encode(state.summary), state.summary.status, [])
    seen = []
    for data in events:
        seen.append(decode_event(data))
        for change in state.apply(seen[-1]):
            (rows[change.position, change.step.attempt],) = step_rows([change])
        yield _Moment(msgspec.json.encode(state.summary), state.summary.status, list(rows.values()))
    # What is stored has previews of the run's input and result, a trace has them as a whole.
    assert msgspec.structs.replace(fold(seen).flow_run, input=None, result=None) == state.summary


async def _go_on(store: Store) -> None:
    """The store is as good as any: it takes another run."""
    project = await store.ensure_project("acme", "afterwards")
    flow = await store.put_draft(project.id, SLUG, name=None, capture=None, source=b"{}")
    run = new_run(project.id, flow.id, id=AFTERWARDS)
    assert (await store.create_run(run)).id == AFTERWARDS
