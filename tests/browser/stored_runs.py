"""Runs that no engine has made: logs written straight into a server's store, with any text at any time."""

from collections.abc import Sequence
from typing import Any, Self

import msgspec

from runglass.engine.capture.snapshots import preview
from runglass.engine.journal.run_writer import step_rows
from runglass.flows.flow import Flow
from runglass.log.content import strip_event
from runglass.log.events import TERMINAL_EVENTS, decode_event
from runglass.log.fold import RunFold
from runglass.log.trace import TERMINAL, RunSummary
from runglass.runtime.runtime import push_flow
from runglass.store.records import Append, RunNumbers, RunRecord
from runglass.support.clock import iso_ms
from runglass.testing import ORG, PROJECT, RunningServer
from tests.records import new_run, there

AT_REST = TERMINAL_EVENTS | {"step_paused_for_tool_calls"}
"""Events after which no process has the run."""

PREVIEWS = {"inputs": "inputPreview", "result": "resultPreview"}
"""What events have of their content for lists."""
Event = dict[str, Any]
"""A member that is `msgspec.Raw` is JSON as it stands."""


class Log:
    """Events of one run as they are added, each so many milliseconds after the one before."""

    def __init__(self, run_id: str, *, start_ms: int) -> None:
        self.run_id = run_id
        self.at_ms = start_ms
        self.events: list[Event] = []

    def start(self, slug: str = "f", *, steps: int = 1, **fields: Any) -> None:
        """The run starts, of a flow of this name with so many steps."""
        of_flow = {"flowId": slug, "flowSlug": slug, "stepCount": steps, "version": 1}
        self.add("run_started", **{"runId": self.run_id, **of_flow, "triggerType": "api", **fields})

    def add(self, kind: str, *, after_ms: int = 0, **fields: Any) -> None:
        """Adds an event with the time and number that come next."""
        self.at_ms += after_ms
        for content in PREVIEWS.keys() & fields.keys():
            fields[PREVIEWS[content]] = preview(msgspec.Raw(msgspec.json.encode(fields[content])))
        self.events.append(
            {
                "eventType": kind,
                "executionId": self.run_id,
                "seq": len(self.events) + 1,
                "at": iso_ms(self.at_ms),
                **fields,
            }
        )

    def without_content(self) -> Self:
        """The log after its content has been taken out."""
        self.events = [msgspec.json.decode(strip_event(msgspec.json.encode(event))) for event in self.events]
        return self


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
            if flow is not None:
                log.events[0]["flowId"] = record.id
            # A run that goes on does so in a process that this server knows nothing of.
            owner = None
            if log.events[-1]["eventType"] not in AT_REST:
                owner = _process_of(log)
                await store.hold_lease(owner, until="2999-01-01T00:00:00.000Z", renew=False)
            run = await store.create_run(
                new_run(project.id, record.id, id=log.run_id, version=version, summary=b"{}", owner=owner)
            )
            await store.append(_append(log, run, owner))

    server.call(put())


def append_events(server: RunningServer, log: Log) -> None:
    """Stores what was added to the log of a run that goes on."""

    async def put() -> None:
        store = server.runtime.store
        run = there(await store.run(log.run_id))
        await store.append(_append(log, run, _process_of(log)))
        await server.runtime.bus.wake(log.run_id)

    server.call(put())


def _process_of(log: Log) -> str:
    return f"the process of {log.run_id}"


def _append(log: Log, run: RunRecord, owner: str | None) -> Append:
    """What of the log is not stored yet."""
    fold = RunFold(RunSummary(id=log.run_id, flow_id="", status="pending"))
    lines = [msgspec.json.encode(event) for event in log.events]
    changes = {}
    for line in lines:
        for change in fold.apply(decode_event(line)):
            changes[change.position, change.step.attempt] = change
    return Append(
        run_no=run.no,
        head=run.head,
        fence=run.fence,
        events=lines[run.head :],
        steps=step_rows(list(changes.values())),
        status=fold.status,
        summary=msgspec.json.encode(fold.summary),
        ended_at=log.events[-1]["at"] if fold.status in TERMINAL else None,
        numbers=RunNumbers.of(fold.summary),
        owner=owner,
    )
