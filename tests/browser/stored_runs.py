"""Runs that no engine has made: logs written straight into a server's store, with any text at any time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from runglass.engine.journal.step_rows import step_rows
from runglass.events import decode_event
from runglass.flow import Flow
from runglass.fold import RunFold, StepChange
from runglass.runtime import push_flow
from runglass.store.records import Append, RunNumbers
from runglass.testing import ORG, PROJECT, RunningServer
from runglass.trace import TERMINAL, RunSummary
from tests.records import new_run

Event = dict[str, Any]
"""A member that is `msgspec.Raw` is JSON as it stands."""


class Log:
    """Events of one run as they are added, each so many milliseconds after the one before."""

    def __init__(self, run_id: str, *, start_ms: int) -> None:
        self.run_id = run_id
        self.at_ms = start_ms
        self.events: list[Event] = []

    def add(self, kind: str, *, after_ms: int = 0, **fields: Any) -> None:
        """Adds an event with the time and number that come next."""
        self.at_ms += after_ms
        self.events.append(
            {
                "eventType": kind,
                "executionId": self.run_id,
                "seq": len(self.events) + 1,
                "at": iso(self.at_ms),
                **fields,
            }
        )


def iso(ms: int) -> str:
    """Milliseconds since 1970 as events have their times."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def store_runs(server: RunningServer, logs: Sequence[Log], *, flow: Flow | None = None) -> None:
    """Stores runs of a flow of `acme/demo`, published as it is; without one, of a flow that nobody knows."""

    async def put() -> None:
        store = server.runtime.store
        project = await store.ensure_project(ORG, PROJECT)
        if flow is None:
            record = await store.put_draft(project.id, "unknown", name=None, capture=None, source=b"{}")
            version = 9
        else:
            record = await push_flow(store, project, flow)
            version = await store.publish(record.id)
        for log in logs:
            fold, changes, lines = _folded(log)
            run = await store.create_run(
                new_run(project.id, record.id, id=log.run_id, version=version, summary=b"{}")
            )
            await store.append(
                Append(
                    run_no=run.no,
                    head=0,
                    fence=run.fence,
                    events=lines,
                    steps=step_rows(changes),
                    status=fold.status,
                    summary=msgspec.json.encode(fold.summary),
                    ended_at=log.events[-1]["at"] if fold.status in TERMINAL else None,
                    numbers=RunNumbers.of(fold.summary),
                )
            )

    server.call(put())


def _folded(log: Log) -> tuple[RunFold, list[StepChange], list[bytes]]:
    fold = RunFold(RunSummary(id=log.run_id, flow_id="", status="pending"))
    lines = [msgspec.json.encode(event) for event in log.events]
    changes = {}
    for line in lines:
        for change in fold.apply(decode_event(line)):
            changes[change.position, change.step.attempt] = change
    return fold, list(changes.values()), lines
