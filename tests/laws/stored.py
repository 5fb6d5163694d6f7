"""What a store keeps of runs beside their events must be what these add up to, and what readers are told.

Everything is read through the protocol of stores, so the laws hold for each kind of them. A run is read as of
one moment; nobody may write to its project while the sums of a project are compared.

More than 300 lines: laws of rows, attempts, money and readers, which all hold up one log.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from runglass.log.events import FlowCompleted, RunStarted, decode_event
from runglass.log.money import ZERO, add_usd
from runglass.log.trace import RunTotals, Trace
from runglass.server.services.run_content import whole_summary
from runglass.store.base import Store
from runglass.store.records import RECORDED, Project, RawRow, RunNumbers, RunRecord, StepRow
from runglass.wire.query import RunQuery
from tests.laws.law import Differences, Lie, Lies, named, require
from tests.laws.log import Log
from tests.reference_fold import JsonObject, reference_attempts, reference_trace

ALL = sys.maxsize
MANY = 1_000_000
TO_GO_ON = ("run_request", "checkpoint", "queue")
"""Tables of what a run needs to go on. Of a long run checkpoints are removed bit by bit after its end."""


class Stored(NamedTuple):
    """What a store has of a run at one moment; `events` are those behind the ones that were read before."""

    record: RunRecord
    events: list[tuple[int, bytes]]
    steps: list[StepRow]


class WholeRun(NamedTuple):
    """All that a store has of a run at one moment: `rows` are those of every table."""

    record: RunRecord
    events: list[tuple[int, bytes]]
    steps: list[StepRow]
    attempts: list[StepRow]
    trace: Trace
    rows: Mapping[str, list[RawRow]]


async def read_run(store: Store, run_id: str, *, after: int = 0) -> Stored:
    """The run, its events behind `after` and the latest attempts of its steps."""
    record = await store.run(run_id)
    while True:
        assert record is not None, f"run {run_id} is not in the store"
        events = await store.events(record.no, after=after, limit_bytes=ALL)
        steps = await store.steps(record.no)
        before, record = record, await store.run(run_id)
        if record == before:
            return Stored(before, events, steps)


async def read_whole(store: Store, run_id: str) -> WholeRun:
    """The run with everything that belongs to it."""
    rows: dict[str, list[RawRow]] = defaultdict(list)
    while True:
        rows.clear()
        record, events, steps = await read_run(store, run_id)
        await store.raw_rows(run_id, lambda table, row: rows[table].append(row))
        _, attempts = await store.attempt_page(record.no, after=(0, 0), limit_bytes=ALL)
        opened = await store.trace(run_id, project_id=record.project_id, limit_bytes=ALL)
        if opened is not None and opened.run == record:
            parts = whole_summary(opened), b",".join(data for _, data in opened.steps)
            trace = msgspec.json.decode(b'{"flowRun":%s,"steps":[%s]}' % parts, type=Trace)
            return WholeRun(record, events, steps, [StepRow(*row) for row in attempts], trace, rows)


async def kept_run(store: Store, run_id: str) -> Log:
    """The log of a run that keeps all laws for itself, however it was gone on with. Raises AssertionError."""
    log, whole = Log(run_id, may_go_back=True), await read_whole(store, run_id)
    require([lie for seq, data in whole.events for lie in log.add(seq, data)])
    require(broken_as_a_whole(log, whole))
    require(broken_by_itself(log))
    return log


async def listed_runs(store: Store, project: Project) -> dict[str, bytes]:
    """The summaries of a project's runs by their ids, oldest first, as the list has them."""
    listed, after = [], None
    while True:
        page = await store.runs(project.id, RunQuery(), after=after, limit=MANY)
        listed += page.runs
        after = page.position
        if after is None:
            return {run.id: run.summary for run in reversed(listed)}


def broken_by(log: Log, stored: Stored | WholeRun, *, of_before: bool = False) -> Lies:
    """Each law that the rows of a run break, which stand where its log does.

    A program `of_before` that goes on with a run drops from its row what it does not know.
    """
    yield from the_row_is_at_the_last_event(log, stored.record)
    yield from the_row_has_the_status(log, stored.record)
    yield from the_row_has_the_summary(log, stored.record, of_before)
    yield from the_row_says_what_the_first_event_says(log, stored.record)
    yield from the_steps_are_the_fold(log, stored.steps)


@named("the row of a run is at the last event of its log")
def the_row_is_at_the_last_event(log: Log, record: RunRecord) -> Differences:
    yield record.head, len(log.events)


@named("the status in a run's row is that of its log")
def the_row_has_the_status(log: Log, record: RunRecord) -> Differences:
    yield record.status, log.status


@named("the summary in a run's row is the fold of its log, byte for byte")
def the_row_has_the_summary(log: Log, record: RunRecord, of_before: bool) -> Differences:
    # Without an event it is what the run was created with.
    if log.events:
        expected = msgspec.json.encode(log.fold.summary)
        if of_before and record.summary != expected:
            told: dict[str, Any] = msgspec.json.decode(expected)
            stored: dict[str, Any] = msgspec.json.decode(record.summary)
            yield stored, {name: told[name] for name in told if name in stored}
        else:
            yield record.summary, expected


@named("the row of a run says of it what its first event says")
def the_row_says_what_the_first_event_says(log: Log, record: RunRecord) -> Differences:
    if log.events and isinstance(begun := decode_event(log.events[0]), RunStarted):
        # Of a recorded run these two follow from all of its log.
        told = log.fold.summary if record.is_recorded else begun
        found = (record.id, record.flow_id, record.version, record.trigger_type, record.session_id)
        yield found, (log.run_id, begun.flow_id, begun.version, told.trigger_type, told.session_id)


@named("the stored steps are the fold of the log, byte for byte")
def the_steps_are_the_fold(log: Log, steps: Sequence[StepRow]) -> Differences:
    expected = log.step_rows
    if steps != expected:
        yield len(steps), len(expected)
        yield from zip(steps, expected, strict=False)


def broken_as_a_whole(log: Log, whole: WholeRun, *, of_before: bool = False) -> Lies:
    """Each law that anything of a run breaks, of which `log` is all that there is."""
    yield from broken_by(log, whole, of_before=of_before)
    yield from the_log_never_changes(log, whole.events)
    yield from every_attempt_is_kept(log, whole.attempts)
    yield from the_trace_with_its_content_is_the_fold(log, whole.trace)
    yield from an_ended_run_leaves_nothing_to_go_on_with(log, whole)
    yield from the_row_can_be_found_by_what_the_run_adds_up_to(log, whole)


@named("events that were read once never change")
def the_log_never_changes(log: Log, events: Sequence[tuple[int, bytes]]) -> Differences:
    yield [seq for seq, _ in events], list(range(1, len(log.events) + 1))
    yield from zip([data for _, data in events], log.events, strict=False)


@named("every attempt is kept as its events tell it")
def every_attempt_is_kept(log: Log, attempts: Sequence[StepRow]) -> Differences:
    expected = log.attempt_rows
    yield [row[:4] for row in attempts], [row[:4] for row in expected]
    yield from zip(attempts, expected, strict=False)


@named("the trace with the run's input and result is the fold of the log")
def the_trace_with_its_content_is_the_fold(log: Log, trace: Trace) -> Differences:
    if log.events:
        yield trace, log.fold.trace()


@named("a run has what it needs to go on until it ends, and not longer")
def an_ended_run_leaves_nothing_to_go_on_with(log: Log, whole: WholeRun) -> Differences:
    if whole.record.ended:
        tables = TO_GO_ON[:1] if "ended_run" in whole.rows else TO_GO_ON
        yield {table: len(whole.rows[table]) for table in tables if table in whole.rows}, {}
    elif whole.record.is_recorded:
        yield {table: len(whole.rows[table]) for table in TO_GO_ON if table in whole.rows}, {}
        yield whole.rows["run"][0]["owner"], None
    else:
        yield len(whole.rows.get("run_request", [])), 1


@named("a run can be found by its end, its length and what it cost")
def the_row_can_be_found_by_what_the_run_adds_up_to(log: Log, whole: WholeRun) -> Differences:
    (row,) = whole.rows["run"]
    numbers = RunNumbers.of(log.fold.summary)
    yield (row["duration_ms"], row["cost_usd"], row["tokens"]), tuple(numbers)
    yield row["ended_at"], log.fold.summary.completed_at


def broken_by_itself(log: Log) -> Lies:
    """Each law that a whole log breaks by itself; as slow as the fold of the specification."""
    yield from the_last_event_sums_the_run_up(log)
    yield from the_trace_is_as_specified(log)


@named("the last event of a run that ends well has its totals")
def the_last_event_sums_the_run_up(log: Log) -> Differences:
    if log.ended and isinstance(ended := decode_event(log.events[-1]), FlowCompleted):
        yield msgspec.convert(ended.summary, RunTotals), log.fold.summary.totals


@named("the trace is what the specification makes of the log")
def the_trace_is_as_specified(log: Log) -> Differences:
    """By a fold that Runglass has no part in."""
    if log.events:
        events = [json.loads(data) for data in log.events]
        yield as_json(log.fold.trace()), as_text(reference_trace(events))
        rows = log.attempt_rows
        for step_id in dict.fromkeys(row.step_id for row in rows):
            attempts = [json.loads(row.data) for row in rows if row.step_id == step_id]
            found = sorted(attempts, key=lambda told: (told.get("loopPath", []), told["attempt"]))
            yield as_text(found), as_text(reference_attempts(step_id, events)["attempts"])


def as_json(value: object) -> str:
    """JSON as `as_text` has it."""
    return as_text(json.loads(msgspec.json.encode(value)))


def as_text(value: Any) -> str:
    """Text to compare by, since `1 == True` in Python and not in JSON."""
    return json.dumps(value, sort_keys=True, indent=1)


class ProjectSums(NamedTuple):
    """The logs of all runs of a project, in the place of one log; it has no `events` of its own."""

    run_id: str
    events: Sequence[bytes]
    logs: Sequence[Log]


def broken_in_sum(project: Project, logs: Iterable[Log]) -> Lies:
    """Each law of its money that a project breaks, of which these are all runs."""
    sums = ProjectSums(f"of project {project.name}", (), list(logs))
    yield from the_project_has_spent_what_its_runs_cost(sums, project)
    yield from the_project_holds_what_its_requests_reserve(sums, project)


@named("a project has spent what its runs cost")
def the_project_has_spent_what_its_runs_cost(sums: ProjectSums, project: Project) -> Differences:
    spent = ZERO
    for log in sums.logs:
        of_run = log.fold.summary.totals
        if log.fold.summary.trigger_type in RECORDED:
            # Another program has paid for it.
            continue
        spent = add_usd(spent, Decimal((of_run and of_run.cost_usd) or 0))
    yield project.spent_usd, spent


@named("a project holds back what the open requests of its runs reserve")
def the_project_holds_what_its_requests_reserve(sums: ProjectSums, project: Project) -> Differences:
    held = ZERO
    for log in sums.logs:
        if not log.ended:
            for step in log.fold.trace().steps:
                held = add_usd(held, Decimal(step.reservation.usd if step.reservation else 0))
    yield project.reserved_usd, held


@named("a project takes as many bytes as its runs")
def the_project_takes_the_bytes_of_its_runs(
    sums: ProjectSums, project: Project, records: Iterable[RunRecord]
) -> Differences:
    yield project.data_bytes, sum(run.log_bytes + run.open_bytes for run in records)


@named("the list of runs has every run as its row has it")
def the_list_has_every_run(
    sums: ProjectSums, listed: Mapping[str, bytes], records: Iterable[RunRecord]
) -> Differences:
    yield listed, {run.id: run.summary for run in records}


@named("who follows the list of runs hears of every run")
def the_changes_have_every_run(
    sums: ProjectSums, changed: Iterable[str], records: Iterable[RunRecord]
) -> Differences:
    yield sorted(changed), sorted(run.id for run in records)


async def broken_in_project(store: Store, project: Project, logs: Mapping[str, Log]) -> list[Lie]:
    """Each law that a project breaks to which nobody writes; `logs` are those of all its runs."""
    sums = ProjectSums(f"of project {project.name}", (), list(logs.values()))
    changes = await store.changed_runs(project.id, RunQuery(), after=0, limit=MANY)
    records = [record for run_id in logs if (record := await store.run(run_id)) is not None]
    return [
        *broken_in_sum(project, logs.values()),
        *the_project_takes_the_bytes_of_its_runs(sums, project, records),
        *the_list_has_every_run(sums, await listed_runs(store, project), records),
        *the_changes_have_every_run(sums, [change.run_id for change in changes], records),
    ]


async def broken_in(store: Store, org: str, name: str) -> list[Lie]:
    """Each law that is broken in a project to which nobody writes, read from the first event on."""
    project = await store.find_project(org, name)
    assert project is not None, f"there is no project {org}/{name}"
    found: list[Lie] = []
    logs: dict[str, Log] = {}
    for run_id in await listed_runs(store, project):
        log = logs[run_id] = Log(run_id)
        whole = await read_whole(store, run_id)
        found += [lie for seq, data in whole.events for lie in log.add(seq, data)]
        found += [*broken_as_a_whole(log, whole), *broken_by_itself(log)]
    return found + await broken_in_project(store, project, logs)


class Told(NamedTuple):
    """What readers were told of one run: its `events` so far, its trace, and all attempts of some steps.

    `listed` is its entry in the list of runs, None where it was not there.
    """

    run_id: str
    events: list[JsonObject]
    trace: JsonObject
    listed: JsonObject | None
    attempts: dict[str, JsonObject]


def broken_by_readers(told: Told, *, of_before: bool = False) -> Lies:
    """Each law that is broken. A program `of_before` tells nothing that it does not know."""
    yield from the_trace_is_the_fold_of_the_stream(told, of_before)
    yield from the_list_tells_what_the_trace_tells(told)
    yield from all_attempts_of_a_step_are_told(told)


@named("the trace that is sent is the fold of the stream")
def the_trace_is_the_fold_of_the_stream(told: Told, of_before: bool) -> Differences:
    expected = reference_trace(told.events)
    if of_before:
        known = told.trace["flowRun"].keys()
        expected["flowRun"] = {name: expected["flowRun"][name] for name in expected["flowRun"] & known}
    yield as_text(told.trace), as_text(expected)


@named("the list of runs tells what the trace tells")
def the_list_tells_what_the_trace_tells(told: Told) -> Differences:
    run: dict[str, Any] = told.trace["flowRun"]
    yield told.listed, {name: value for name, value in run.items() if name not in ("input", "result")}


@named("all attempts of a step are told, by iteration, then by number")
def all_attempts_of_a_step_are_told(told: Told) -> Differences:
    for step_id, attempts in told.attempts.items():
        yield as_text(attempts), as_text(reference_attempts(step_id, told.events))
