"""New runs, created together: those of a project that come during one statement go in the next one.

A new run takes the number of a change of its project, whose row is then held until the commit. One by one,
each would wait until the disk has the one before. What runs were asked for is read together as well.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from runglass.store.postgres.append import Waiting, write_together
from runglass.store.postgres.connections import Connections
from runglass.store.postgres.sql_helpers import NOW
from runglass.store.records import NewRecording, NewRun, RunRecord
from runglass.store.run_tables import RUN, run_of

New = TypeVar("New", bound=NewRun)

MOST_RUNS = 100
MOST_BYTES = 4 << 20
"""One statement has no more: it bounds how long the first run in it waits."""

_REQUESTS = "SELECT run_no, request FROM run_request WHERE run_no = ANY ($1::bigint[])"


class Creation(NamedTuple, Generic[New]):
    """A call that creates runs of one project, the types of its arrays, and a run as a row of them."""

    call: str
    types: str
    row: Callable[[New], tuple[Any, ...]]


EXECUTED: Creation[NewRun] = Creation(
    f"create_runs({NOW},",
    "text text bigint text text text bytea bytea text bigint text bytea",
    lambda run: (
        *(run.id, run.flow_id, run.version, run.trigger_type, run.capture, run.session_id),
        *(run.request, run.summary, run.owner, run.key_id),
        *(run.call or (None, None)),
    ),
)
RECORDED: Creation[NewRecording] = Creation(
    "create_recordings(",
    "text text bigint text text text bytea bigint text text text",
    lambda run: (
        *(run.id, run.flow_id, run.version, run.trigger_type, run.capture, run.session_id),
        *(run.summary, run.key_id, run.trace_id, run.continues, run.due_at),
    ),
)


class RunCreation(Generic[New]):
    """The new runs of this process. Those of one project are created by one statement at a time."""

    def __init__(self, connections: Connections, creation: Creation[New]) -> None:
        self._db = connections
        self._row = creation.row
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(creation.types.split(), 2))
        self._sql = RUN.replace("FROM run", f"FROM {creation.call} $1, {arrays})")
        self._waiting: dict[int, list[Waiting[New, RunRecord | None]]] = {}
        self._at_work: dict[int, asyncio.Task[None]] = {}

    async def create(self, run: New) -> RunRecord | None:
        """The run; None where another one has its call, or its place in the trace. Raises StoreError."""
        waiting: Waiting[New, RunRecord | None] = Waiting(run, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(run.project_id, []).append(waiting)
        if run.project_id not in self._at_work:
            self._at_work[run.project_id] = asyncio.create_task(self._create_waiting(run.project_id))
        return await waiting.answer

    async def aclose(self) -> None:
        """Returns when everything that waits has been created or refused."""
        while self._at_work:
            await asyncio.wait(self._at_work.values())

    async def _create_waiting(self, project_id: int) -> None:
        try:
            while together := self._take(project_id):
                await write_together(together, self._create)
        finally:
            del self._at_work[project_id]

    def _take(self, project_id: int) -> list[Waiting[New, RunRecord | None]]:
        """The first that wait, but for those whose callers have left."""
        waiting = [each for each in self._waiting.pop(project_id, ()) if not each.answer.done()]
        count = size = 0
        while count < min(len(waiting), MOST_RUNS) and size < MOST_BYTES:
            size += len(waiting[count].item.request)
            count += 1
        if waiting[count:]:
            self._waiting[project_id] = waiting[count:]
        return waiting[:count]

    async def _create(self, runs: Sequence[New]) -> list[RunRecord | None]:
        """The runs of one project that are there now. Sent again, it finds those it has created."""
        columns = [list(column) for column in zip(*map(self._row, runs), strict=True)]
        rows = await self._db.repeat(lambda db: db.fetch(self._sql, runs[0].project_id, *columns))
        created = {run.id: run for run in map(run_of, rows)}
        return [created.get(run.id) for run in runs]


class RunRequests:
    """Reads the requests that are asked for in the same turn of the event loop with one statement."""

    def __init__(self, connections: Connections) -> None:
        self._db = connections
        self._wanted: set[int] = set()
        self._next: asyncio.Task[Mapping[int, bytes]] | None = None

    async def read(self, run_no: int) -> bytes | None:
        """The request of the run; None where it is not known any more. Raises StoreError."""
        self._wanted.add(run_no)
        if self._next is None:
            self._next = asyncio.create_task(self._read_wanted())
        # That one of those who wait is cancelled must not take it from the others.
        return (await asyncio.shield(self._next)).get(run_no)

    async def _read_wanted(self) -> Mapping[int, bytes]:
        wanted, self._wanted, self._next = list(self._wanted), set(), None
        return dict(await self._db.read(lambda db: db.fetch(_REQUESTS, wanted)))
