"""Tails on the runs of a project: each change comes, in order, wherever a tail begins again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from runglass.bus.base import Bus, runs_of
from runglass.store.records import RunRecord
from runglass.store.sqlite.store import SqliteStore
from runglass.tails.run_list import ListPage, follow_runs
from runglass.wire.query import first_id
from runglass.wire.query_parser import parse_run_query
from tests.conformance.stores import batch
from tests.records import new_run

STATUSES = ["running", "paused", "running", "completed"]


class Project:
    """A project with runs that come and go on as a test says."""

    def __init__(self, store: SqliteStore, bus: Bus, project_id: int, flow_id: str) -> None:
        self.store = store
        self.bus = bus
        self.id = project_id
        self.flow_id = flow_id
        self.runs: dict[str, tuple[RunRecord, int]] = {}
        self.changes: list[tuple[str, str]] = []
        """Each run and status, in the order of the commits."""

    async def create(self) -> str:
        run_id = first_id(len(self.runs) + 1)
        run = await self.store.create_run(new_run(self.id, self.flow_id, id=run_id, summary=b'"pending"'))
        self.runs[run_id] = (run, 0)
        await self._changed(run_id, "pending")
        return run_id

    async def move(self, run_id: str) -> None:
        """Gives the run its next status, if it has not ended."""
        run, head = self.runs[run_id]
        if head == len(STATUSES):
            return
        status = STATUSES[head]
        summary = b'"%b"' % status.encode()
        await self.store.append(batch(run, head, b"{}", status=status, summary=summary))
        self.runs[run_id] = (run, head + 1)
        await self._changed(run_id, status)

    async def _changed(self, run_id: str, status: str) -> None:
        self.changes.append((run_id, status))
        await self.bus.wake(runs_of(self.id))

    def follow(
        self, query: str = "", *, after: int = 0, poll_s: float = 9_999
    ) -> AsyncGenerator[ListPage, None]:
        terms = parse_run_query(query, now=datetime.now(UTC))
        where = self.store, self.bus, self.id
        return follow_runs(*where, terms, after=after, idle_s=9_999, poll_s=poll_s, pause_s=0.0)


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        found = await store.ensure_project("acme", "demo")
        flow = await store.put_draft(found.id, "f", name=None, capture=None, source=b"{}")
        yield Project(store, Bus(), found.id, flow.id)


async def until(pages: AsyncGenerator[ListPage, None], last: int) -> list[ListPage]:
    """The pages up to the one that has come to the change with this number."""
    found: list[ListPage] = []
    while not found or found[-1].last < last:
        found.append(await anext(pages))
    return found


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
    for _ in range(60):
        if not project.runs or random.random() < 0.3:
            await project.create()
        else:
            await project.move(random.choice(list(project.runs)))
    last = len(project.changes)
    for after in range(last):
        async with aclosing(project.follow(after=after)) as pages:
            assert told(await until(pages, last)) == newest(project, after)


async def test_nothing_is_missed_while_others_write_and_no_wake_up_arrives(project: Project) -> None:
    random = Random(5)

    async def write() -> None:
        for _ in range(100):
            if len(project.runs) < 5:
                await project.create()
            else:
                await project.move(random.choice(list(project.runs)))

    async with aclosing(project.follow(poll_s=0.01)) as pages:
        project.bus.wake = deaf  # type: ignore[method-assign]
        writing = asyncio.create_task(write())
        found: list[ListPage] = []
        while not writing.done() or not found or found[-1].last < len(project.changes):
            found.append(await anext(pages))
    heard = told(found)
    assert [number for number, _, _ in heard] == sorted({number for number, _, _ in heard})
    assert {run_id: status for _, run_id, status in heard} == dict(project.changes)


async def deaf(subject: str) -> None:
    """Loses the wake-up."""


async def test_a_run_that_no_longer_meets_the_query_is_told_without_its_row(project: Project) -> None:
    run_id = await project.create()
    await project.move(run_id)
    async with aclosing(project.follow("status:running")) as pages:
        assert told(await until(pages, 2)) == [(2, run_id, "running")]
        await project.move(run_id)
        (page,) = await until(pages, 3)
    (change,) = page.changed
    assert (change.number, change.run_id, change.listing) == (3, run_id, None)


async def test_more_changes_than_a_page_has_come_one_page_after_the_other(project: Project) -> None:
    for _ in range(120):
        await project.create()
    async with aclosing(project.follow()) as pages:
        found = await until(pages, 120)
    assert [len(page.changed) for page in found] == [50, 50, 20]
    assert told(found) == newest(project, 0)
