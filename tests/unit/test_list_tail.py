"""Tails on the runs of a project: each change comes, in order, wherever a tail begins again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest

from runglass.bus.base import Bus, runs_of
from runglass.store.records import RunRecord
from runglass.store.sqlite.store import SqliteStore
from runglass.tails.run_list import ListPage, follow_runs
from runglass.wire.query import RunQuery, first_id
from tests.conformance.stores import batch, make_run
from tests.faulty_store import FaultyStore

STATUSES = ["running", "paused", "running", "completed"]


class Project:
    """A project with runs that come and go on as a test says."""

    def __init__(self, store: SqliteStore, project_id: int) -> None:
        self.store = store
        self.bus = Bus()
        self.id = project_id
        self.runs: list[tuple[RunRecord, int]] = []
        self.changes: list[tuple[str, str]] = []
        """Each run and status, in the order of the commits."""

    async def change(self, random: Random, *, most_runs: int) -> None:
        """Creates a run or gives one its next status, if it has not ended."""
        number, status = random.randrange(most_runs), "pending"
        if number >= len(self.runs):
            run = await make_run(self.store, first_id(len(self.runs) + 1))
            self.runs.append((run, 0))
        else:
            run, head = self.runs[number]
            if head == len(STATUSES):
                return
            status = STATUSES[head]
            await self.store.append(batch(run, head, b"{}", status=status))
            self.runs[number] = run, head + 1
        self.changes.append((run.id, status))
        await self.bus.wake(runs_of(self.id))

    def follow(self, *, after: int = 0, poll_s: float = 9_999) -> AsyncGenerator[ListPage, None]:
        where = self.store, self.bus, self.id
        return follow_runs(*where, RunQuery(), after=after, idle_s=9_999, poll_s=poll_s, pause_s=0.0)


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        yield Project(store, (await store.ensure_project("acme", "demo")).id)


def told(pages: list[ListPage]) -> list[tuple[int, str, str]]:
    """Number, run and status of each change that a page has."""
    return [
        (each.number, each.run_id, each.listing.status)
        for page in pages
        for each in page.changed
        if each.listing is not None
    ]


def newest(project: Project, after: int) -> list[tuple[int, str, str]]:
    """What one must hear who has heard all up to `after`: the newest change of each run."""
    numbered = [(number, *change) for number, change in enumerate(project.changes, 1)]
    of_run = {run_id: (number, run_id, status) for number, run_id, status in numbered}
    return sorted(change for change in of_run.values() if change[0] > after)


async def test_wherever_a_tail_begins_again_it_has_the_newest_change_of_each_run(project: Project) -> None:
    random = Random(3)
    for _ in range(200):
        await project.change(random, most_runs=150)
    last = len(project.changes)
    for after in range(last):
        found: list[ListPage] = []
        async with aclosing(project.follow(after=after)) as pages:
            while not found or found[-1].last < last:
                found.append(await anext(pages))
        assert told(found) == newest(project, after)
        assert [len(page.changed) for page in found[:-1]] == [50] * (len(found) - 1)
    assert len(newest(project, 0)) > 100, "there are more than fit into two pages"


async def test_nothing_is_missed_while_others_write_and_no_wake_up_arrives(project: Project) -> None:
    random = Random(5)

    async def write() -> None:
        for _ in range(100):
            await project.change(random, most_runs=5)

    async with aclosing(project.follow(poll_s=0.01)) as pages:
        FaultyStore(project.bus).answer("wake", None)
        writing = asyncio.create_task(write())
        found: list[ListPage] = []
        while not writing.done() or not found or found[-1].last < len(project.changes):
            found.append(await anext(pages))
    heard = told(found)
    assert [number for number, _, _ in heard] == sorted({number for number, _, _ in heard})
    assert {run_id: status for _, run_id, status in heard} == dict(project.changes)
