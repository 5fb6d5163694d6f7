"""What must hold of every run in the store, after each commit and at the end, whatever happens to processes.

The events of each run are folded again as they come, and all that the store keeps beside them is held against
that. When something happens, and why, is not known here.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec

from runglass.engine.journal.checkpoints import path_text
from runglass.engine.journal.resume import WORKER_LOST
from runglass.engine.journal.run_spec import SegmentSpec
from runglass.log.events import (
    FlowCompleted,
    FlowFailed,
    StepCompleted,
    StepError,
    StepEvent,
    StepRetrying,
    StepSkipped,
    StepStarted,
    StreamEvent,
    decode_event,
    is_terminal,
)
from runglass.log.fold import Address, TraceFold
from runglass.log.trace import StepTrace
from runglass.store.records import Append
from tests.fakes import CRASH_RETRIES
from tests.prove.simulating.flows import Told, result_of
from tests.prove.simulating.limits import Limits
from tests.prove.simulating.virtual import Process
from tests.prove.simulating.walk import Pass


def demand(holds: object, message: str) -> None:
    """Raises AssertionError unless it holds."""
    if not holds:
        raise AssertionError(message)


class Log:
    """One run, as its events tell it."""

    def __init__(self, no: int, run_id: str, begun: SegmentSpec, *, budgeted: bool) -> None:
        self.no = no
        self.id = run_id
        self.spec = begun.spec
        self.label: str = begun.spec.inputs["run"]
        self.fence = 0
        self.holder: Process | None = None
        self.owner: str | None = None
        """Whose lease it was claimed under: a process whose lease has run out takes another one."""
        self.takeovers = 0
        self.budgeted = budgeted
        self.waited = False
        self.events: list[StreamEvent] = []
        self.fold = TraceFold()
        self.walked = Pass(begun.spec.flow)
        self.status = "pending"
        self._encoded: dict[int, tuple[StepTrace, bytes]] = {}
        self._starts: dict[tuple[Address, int], str] = {}

    @property
    def ended(self) -> bool:
        return bool(self.events) and is_terminal(self.events[-1])

    def append(self, batch: Append, process: Process) -> None:
        """Takes in what has just been appended. Raises AssertionError for what may not be there."""
        demand(not self.ended, f"{self.id} has ended, and there is more after that")
        demand(batch.head == len(self.events), f"{self.id}: an append after {batch.head}, not the last event")
        demand(batch.fence == self.fence, f"{self.id}: an append with fence {batch.fence}, not {self.fence}")
        demand(process is self.holder, f"{self.id}: an append by {process.name}, which does not hold it")
        self.waited = self.status == "paused"
        self.walked.drop(batch.dropped)
        for kept in batch.checkpoints:
            self.walked.keep(kept)
        for data in batch.events:
            event = decode_event(data)
            self._take(event)
        self.status = self.fold.trace().flow_run.status
        self.takeovers = 0

    def claim(self, fence: int, process: Process, owner: str | None) -> None:
        """Somebody goes on with it. Raises AssertionError where nobody may."""
        demand(fence > self.fence, f"{self.id}: fence {fence} after {self.fence}")
        demand(not self.ended, f"{self.id} has ended and was claimed")
        is_taken_over = self.holder is not process or owner not in (None, self.owner)
        if is_taken_over and not (self.holder and self.holder.let_go):
            self.takeovers += 1
        self.fence, self.holder, self.owner = fence, process, owner or self.owner

    def _take(self, event: StreamEvent) -> None:
        demand(not self.ended, f"{self.id}: {event.event_type} follows the end")
        demand(event.seq == len(self.events) + 1, f"{self.id}: seq {event.seq} after {len(self.events)}")
        if self.events:
            demand(
                event.at >= self.events[-1].at, f"{self.id}: event {event.seq} is older than the one before"
            )
        if isinstance(event, StepEvent):
            self.walked.take(event)
        if isinstance(event, StepStarted):
            self._starts[Address(event.step_id, event.loop_path), event.attempt] = event.at
        self.events.append(event)
        self.fold.apply(event)
        if isinstance(event, FlowFailed) and event.step_id not in self.walked.lost_ids:
            error: Any = event.error
            if error["code"] == "CREDITS_EXHAUSTED":
                demand(self.budgeted, f"{self.id} ended for want of a budget that nobody set")
                return
            demand(error["code"] == WORKER_LOST, f"{self.id} failed with {error} though no step was lost")
            demand(self.takeovers > CRASH_RETRIES, f"{self.id} is given up after {self.takeovers} takeovers")
        if isinstance(event, FlowCompleted):
            self._check_summary(msgspec.json.decode(msgspec.json.encode(event.summary)))

    def _check_summary(self, summary: dict[str, Any]) -> None:
        counted = {"completed": 0, "failed": 0, "retried": 0, "skipped": 0}
        kinds = {
            StepCompleted: "completed",
            StepError: "failed",
            StepRetrying: "retried",
            StepSkipped: "skipped",
        }
        for event in self.events:
            if type(event) in kinds:
                counted[kinds[type(event)]] += 1
        told = {name: summary[name] for name in counted}
        demand(told == counted, f"{self.id}: the summary says {told}, the log {counted}")

    def check_stored(self, db: sqlite3.Connection) -> None:
        """Holds what the store keeps of the run against its events."""
        head, status, summary = db.execute(
            "SELECT head, status, summary FROM run WHERE no = ?", (self.no,)
        ).fetchone()
        seqs = db.execute("SELECT count(*), max(seq) FROM event WHERE run_no = ?", (self.no,)).fetchone()
        count = len(self.events)
        demand((head, *seqs) == (count, count, count), f"{self.id}: head {head}, seqs {seqs}, not {count}")
        trace = self.fold.trace()
        demand(status == trace.flow_run.status, f"{self.id} is {status} and its fold {trace.flow_run.status}")
        demand(summary == msgspec.json.encode(self.fold.summary), f"{self.id}: flowRun is not as folded")
        rows = db.execute("SELECT data FROM step WHERE run_no = ? ORDER BY position", (self.no,)).fetchall()
        folded = [self._bytes(position, step) for position, step in enumerate(trace.steps)]
        demand([row[0] for row in rows] == folded, f"{self.id}: the steps are not as folded at {count}")
        if self.ended:
            running = [step.step_id for step in trace.steps if step.status == "running"]
            demand(not running, f"{self.id} has ended and {running} still run")
            for table in ("checkpoint", "run_request"):
                left = db.execute(f"SELECT count(*) FROM {table} WHERE run_no = ?", (self.no,)).fetchone()[0]
                demand(not left, f"{self.id} has ended and leaves {left} rows in {table}")

    def _bytes(self, position: int, step: StepTrace) -> bytes:
        known = self._encoded.get(position)
        if known is None or known[0] is not step:
            known = self._encoded[position] = (step, msgspec.json.encode(step))
        return known[1]

    def check_whole(self, db: sqlite3.Connection) -> Decimal:
        """Holds all attempts against the log, and the result against another interpreter; what it cost."""
        rows = db.execute(
            "SELECT step_id, loop_path, attempt, data FROM step WHERE run_no = ?1 UNION ALL"
            " SELECT step_id, loop_path, attempt, data FROM step_attempt WHERE run_no = ?1 ORDER BY 1, 2, 3",
            (self.no,),
        ).fetchall()
        attempts = [msgspec.json.decode(row[3], type=StepTrace) for row in rows]
        for (step_id, path, number, _), step in zip(rows, attempts, strict=True):
            demand(
                (step_id, path, number) == (step.step_id, path_text(step.loop_path), step.attempt), "a row"
            )
            start = self._starts.get((Address(step.step_id, step.loop_path), step.attempt))
            if step.status != "skipped":
                demand(step.started_at == start, f"{self.id}: {step_id} {path} #{number} has lost its start")
            code = (step.error_context or {}).get("code")
            if code == WORKER_LOST and step.status == "failed":
                demand(
                    step.completed_at, f"{self.id}: {step_id} {path} #{number} was lost, and nobody says when"
                )
        for (one, one_path, number, _), (other, other_path, following, _) in pairwise(rows):
            if (one, one_path) == (other, other_path):
                demand(following == number + 1, f"{self.id}: attempt {following} of {one} follows {number}")
        demand(all(row[2] == 1 for row in _firsts(rows)), f"{self.id}: a step has no first attempt")
        cost = sum((Decimal(step.cost_usd) for step in attempts if step.cost_usd), Decimal(0))
        if self.ended and isinstance(ended := self.events[-1], FlowCompleted):
            self._check_totals(ended, attempts, cost)
            self._check_result(db)
        return cost

    def _check_totals(self, ended: FlowCompleted, attempts: list[StepTrace], cost: Decimal) -> None:
        summary: Any = ended.summary
        tokens = sum(step.tokens.total for step in attempts if step.tokens)
        told = summary.get("tokens", {"total": 0})["total"]
        demand(told == tokens, f"{self.id}: {told} tokens are told, and {tokens} were used")
        told = Decimal(summary.get("costUsd", 0))
        demand(told == cost, f"{self.id}: {told} is told, and {cost} was spent")
        for status in ("completed", "skipped"):
            found = sum(step.status == status for step in attempts)
            demand(summary[status] == found, f"{self.id}: {summary[status]} {status}, found {found}")
        failed = sum(step.status == "failed" for step in attempts)
        told = summary["failed"] + summary["retried"]
        demand(told == failed, f"{self.id}: {told} attempts failed, found {failed}")

    def _check_result(self, db: sqlite3.Connection) -> None:
        stored = db.execute("SELECT result FROM run_outcome WHERE run_no = ?", (self.no,)).fetchone()[0]
        told = Told(frozenset(self.walked.lost), self.walked.decisions)
        expected = result_of(self.spec.flow, self.spec.inputs, told)
        found = msgspec.json.decode(stored)
        demand(found == expected, f"{self.id}: the result is {found}, not {expected}")


def _firsts(rows: Sequence[Any]) -> list[Any]:
    return [row for before, row in pairwise([(None, None), *rows]) if before[:2] != row[:2]]


class Laws:
    """The laws for one database, with these limits; `watch` hears of each commit.

    `on_takeover` hears of each process that has just lost a run to another one.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.most_at_once = 0
        """How many runs of a project with a limit went on at once."""
        self.logs: dict[int, Log] = {}
        self.late_effects = 0
        self.db: sqlite3.Connection | None = None
        self.on_takeover: Callable[[Process], None] = lambda _: None

    def named(self, label: str) -> Log | None:
        return next((log for log in self.logs.values() if log.label == label), None)

    def of(self, run_id: str) -> Log | None:
        return next((log for log in self.logs.values() if log.id == run_id), None)

    def watch(self, process: Process, appends: list[Append]) -> None:
        """Checks what a process has committed. Raises AssertionError for a lie."""
        assert self.db is not None
        for batch in appends:
            self.logs[batch.run_no].append(batch, process)
        for run_no in dict.fromkeys(batch.run_no for batch in appends):
            self.logs[run_no].check_stored(self.db)
        self._see_claims(self.db, process)
        if self._limits.budget_usd is not None:
            self._check_budgets(self.db)
        if self._limits.are_of_runs:
            self._check_limits(self.db)

    def _see_claims(self, db: sqlite3.Connection, process: Process) -> None:
        for no, run_id, fence, owner in db.execute("SELECT no, id, fence, owner FROM run ORDER BY no"):
            log = self.logs.get(no)
            if log is None:
                request = db.execute("SELECT request FROM run_request WHERE run_no = ?", (no,)).fetchone()[0]
                begun = msgspec.json.decode(request, type=SegmentSpec)
                log = self.logs[no] = Log(no, run_id, begun, budgeted=self._limits.budget_usd is not None)
                log.fence, log.holder, log.owner = fence, process, owner
            elif fence != log.fence:
                before = log.holder
                log.claim(fence, process, owner)
                if before is not None and before is not process:
                    self.on_takeover(before)

    def _check_budgets(self, db: sqlite3.Connection) -> None:
        """No call costs more than was held for it here, so a budget is never passed."""
        for budget, spent, reserved in db.execute("SELECT budget_usd, spent_usd, reserved_usd FROM project"):
            if budget is not None:
                promised = Decimal(spent) + Decimal(reserved)
                demand(promised <= Decimal(budget), f"{promised} dollars of {budget} are spent or held")

    def _check_limits(self, db: sqlite3.Connection) -> None:
        """Who has a run goes on with it, or is gone and will be followed by another one."""
        begun = db.execute(
            "SELECT project.id, 'acme/' || project.name || '/' || slug, count(*) FROM run"
            " JOIN project ON project.id = run.project_id JOIN flow ON flow.id = flow_id"
            " WHERE owner IS NOT NULL AND run.status IN ('pending', 'running', 'paused') GROUP BY 1, 2"
        ).fetchall()
        of_projects: Counter[int] = Counter()
        for project_id, path, count in begun:
            of_projects[project_id] += count
            most = self._limits.of_flows.get(path)
            demand(most is None or count <= most, f"{count} runs of {path} go on at once, and {most} may")
        most, at_once = self._limits.of_project, max(of_projects.values(), default=0)
        demand(most is None or at_once <= most, f"{at_once} runs of a project go on at once, and {most} may")
        self.most_at_once = max(self.most_at_once, at_once)

    def effect(self, label: str, address: Address, process: Process) -> None:
        """Something was done for a step. Raises AssertionError if the log says that it has ended well."""
        log = self.named(label)
        assert log is not None
        if process is not log.holder:
            # Others go on with the run, and nobody has told it yet: no fence reaches what is outside.
            self.late_effects += 1
            return
        if log.status == "paused" or (log.ended and log.waited):
            # Code may run one append ahead: that the run was taken up is on its way, or comes too late.
            return
        demand(not log.ended, f"{log.id} has ended, and {address} goes on")
        done = address in log.walked.completed
        demand(not done, f"{log.id}: {address} has ended well and is done once more")

    def check_all(self) -> None:
        """Holds every run against its log. Raises AssertionError."""
        assert self.db is not None
        spent = Decimal(0)
        for log in self.logs.values():
            log.check_stored(self.db)
            spent += log.check_whole(self.db)
        rows = self.db.execute("SELECT spent_usd, reserved_usd FROM project").fetchall()
        stored = sum((Decimal(row[0]) for row in rows), Decimal(0))
        demand(all(Decimal(row[1]) == 0 for row in rows), f"money is held for calls of ended runs: {rows}")
        demand(stored == spent, f"{stored} dollars are spent, the traces say {spent}")
