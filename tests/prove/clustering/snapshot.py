"""The data of a cluster, read from its database by plain SQL, once nothing goes on any more."""

from collections import defaultdict
from datetime import datetime
from typing import Any, Self

import asyncpg
import msgspec

from runglass.log.events import decode_event
from tests.prove.clustering.hands import Hand
from tests.prove.killing.snapshot import RunRow

_RUNS = (
    "SELECT run.no, run.id, flow.slug, run.status, run.head, run.session_id, run.trigger_type, run.summary"
    " FROM run JOIN flow ON flow.id = run.flow_id JOIN project ON project.id = run.project_id"
    " WHERE run.no > $1 AND project.name = $2 ORDER BY run.no"
)
_EVENTS = "SELECT run_no, seq, data FROM event WHERE run_no = ANY ($1) ORDER BY run_no, seq"
_STEPS = "SELECT run_no, data FROM step WHERE run_no = ANY ($1) ORDER BY run_no, position"
_EARLIER = "SELECT run_no, data FROM step_attempt WHERE run_no = ANY ($1)"
_RESULTS = "SELECT run_no, result FROM run_outcome WHERE run_no = ANY ($1)"
_LEFTOVERS = " UNION ".join(
    f"SELECT '{table}', run.id FROM {table} JOIN run ON run.no = {table}.run_no"
    " WHERE run.status IN ('completed', 'failed', 'cancelled')"
    for table in ("checkpoint", "run_request", "queue")
)
_HANDS = "SELECT run_no, fence, head, who, was_lost, at FROM prove.hand WHERE run_no = ANY ($1) ORDER BY no"


class ClusterData:
    """What the database has of the runs of a project whose numbers are beyond `after`."""

    def __init__(self) -> None:
        self.hands: list[Hand] = []
        self._runs: list[RunRow] = []
        self._events: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        self._steps: dict[int, list[bytes]] = defaultdict(list)
        self._earlier: dict[int, list[bytes]] = defaultdict(list)
        self._results: dict[int, bytes | None] = {}
        self._leftovers: list[tuple[str, str]] = []

    @classmethod
    async def read(cls, address: str, project: str, *, after: int) -> Self:
        data = cls()
        connection = await asyncpg.connect(address)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                data._runs = [RunRow._make(row) for row in await connection.fetch(_RUNS, after, project)]
                numbers = [run.no for run in data._runs]
                for no, seq, event in await connection.fetch(_EVENTS, numbers):
                    data._events[no].append((seq, event))
                for no, step in await connection.fetch(_STEPS, numbers):
                    data._steps[no].append(step)
                for no, step in await connection.fetch(_EARLIER, numbers):
                    data._earlier[no].append(step)
                data._results = dict(map(tuple, await connection.fetch(_RESULTS, numbers)))
                data._leftovers = list(map(tuple, await connection.fetch(_LEFTOVERS)))
                data.hands = [Hand._make(row) for row in await connection.fetch(_HANDS, numbers)]
        finally:
            await connection.close()
        return data

    def runs(self) -> list[RunRow]:
        return self._runs

    def events(self, run: RunRow, *, after: int = 0) -> list[tuple[int, bytes]]:
        return [event for event in self._events[run.no] if event[0] > after]

    def dates(self) -> dict[int, list[datetime]]:
        """When the events of each run were made, as they say."""
        return {
            no: [datetime.fromisoformat(decode_event(event).at) for _, event in events]
            for no, events in self._events.items()
        }

    def steps(self, run: RunRow) -> list[bytes]:
        return self._steps[run.no]

    def attempts(self, run: RunRow) -> list[bytes]:
        return self._steps[run.no] + self._earlier[run.no]

    def result(self, run: RunRow) -> Any:
        result = self._results.get(run.no)
        return None if result is None else msgspec.json.decode(result)

    def leftovers(self) -> list[tuple[str, str]]:
        return self._leftovers

    def faults(self) -> list[str]:
        return []
