"""What must hold of every run in the store, after each commit and at the end, whatever happens to processes.

The laws of logs, rows and money are those of every proof (`tests/laws`). Here are those of a world in which
somebody sees each commit: who may write, what a step has a right to, and what a run must result in. When
something happens, and why, is not known here.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from runglass.engine.journal.resume import WORKER_LOST
from runglass.engine.journal.run_spec import SegmentSpec
from runglass.log.events import FlowCompleted, FlowFailed, StepEvent, decode_event
from runglass.log.fold import Address
from runglass.log.money import add_usd
from runglass.store.records import Append, Project
from tests.fakes import CRASH_RETRIES
from tests.laws.law import require
from tests.laws.log import Log
from tests.laws.stored import (
    WholeRun,
    broken_as_a_whole,
    broken_by,
    broken_by_itself,
    broken_in_sum,
    read_run,
    read_whole,
)
from tests.prove.simulating.disk import LookedAt
from tests.prove.simulating.flows import Told, result_of
from tests.prove.simulating.limits import Limits
from tests.prove.simulating.virtual import Process
from tests.prove.simulating.walk import Pass
from tests.records import there

Result = TypeVar("Result")


def at_once(work: Coroutine[Any, Any, Result]) -> Result:
    """What the work results in, which waits for nothing: the world stands still meanwhile."""
    try:
        work.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    raise AssertionError(f"{work} waits")


class WatchedLog(Log):
    """One run, as its events tell it, and who has it."""

    def __init__(self, no: int, run_id: str, begun: SegmentSpec, *, budgeted: bool, is_timed: bool) -> None:
        super().__init__(run_id)
        self.no = no
        self.spec = begun.spec
        self.label: str = begun.spec.inputs["run"]
        self.fence = 0
        self.holder: Process | None = None
        self.owner: str | None = None
        """Whose lease it was claimed under: a process whose lease has run out takes another one."""
        self.takeovers = 0
        self.budgeted = budgeted
        self.waited = False
        self.walked = Pass(begun.spec.flow, self, is_timed=is_timed)

    def append(self, batch: Append, process: Process, stored: list[tuple[int, bytes]]) -> None:
        """Takes in what has just been appended. Raises AssertionError for what may not be there."""
        head, name = len(self.events), self.run_id
        assert not self.ended, f"{name} has ended, and there is more after that"
        assert batch.head == head, f"{name}: an append after {batch.head}, not the last event"
        assert batch.fence == self.fence, f"{name}: an append with fence {batch.fence}, not {self.fence}"
        assert process is self.holder, f"{name}: an append by {process.name}, which does not hold it"
        self.waited = self.status == "paused"
        self.walked.drop(batch.dropped)
        self.drop(batch.dropped)
        for kept in batch.checkpoints:
            self.walked.keep(kept)
        assert [data for _, data in stored] == batch.events, f"{name}: other events than were appended"
        for seq, data in stored:
            require(self.add(seq, data))
            event = decode_event(data)
            if isinstance(event, StepEvent):
                self.walked.take(event)
            if isinstance(event, FlowFailed):
                self._check_failure(event)
        self.takeovers = 0

    def claim(self, fence: int, process: Process, owner: str | None) -> None:
        """Somebody goes on with it. Raises AssertionError where nobody may."""
        assert fence > self.fence, f"{self.run_id}: fence {fence} after {self.fence}"
        assert not self.ended, f"{self.run_id} has ended and was claimed"
        is_taken_over = self.holder is not process or owner not in (None, self.owner)
        if is_taken_over and not (self.holder and self.holder.let_go):
            self.takeovers += 1
        self.fence, self.holder, self.owner = fence, process, owner or self.owner

    def _check_failure(self, event: FlowFailed) -> None:
        if event.step_id not in {address.step_id for address in self.walked.lost}:
            error: Any = event.error
            if error["code"] == "CREDITS_EXHAUSTED":
                assert self.budgeted, f"{self.run_id} ended for want of a budget that nobody set"
                return
            assert error["code"] == WORKER_LOST, f"{self.run_id} failed with {error}, and no step was lost"
            count = self.takeovers
            assert count > CRASH_RETRIES, f"{self.run_id} is given up after {count} takeovers"

    def check_whole(self, whole: WholeRun, result: bytes | None) -> None:
        """Holds all that is stored against the log, and the result against another interpreter."""
        require([*broken_as_a_whole(self, whole), *broken_by_itself(self)])
        self.walked.check_skipped()
        if self.ended and isinstance(decode_event(self.events[-1]), FlowCompleted):
            told = Told(frozenset(self.walked.lost), self.walked.decisions)
            expected = result_of(self.spec.flow, self.spec.inputs, told)
            found = msgspec.json.decode(result or b"null")
            assert found == expected, f"{self.run_id}: the result is {found}, not {expected}"


class Laws:
    """The laws for one database, with these limits; `watch` hears of each commit.

    `on_takeover` hears of each process that has just lost a run to another one.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.most_at_once = 0
        """How many runs of a project with a limit went on at once."""
        self.is_timed = False
        """Whether the clocks of all processes are right, and none of them sleeps."""
        self.logs: dict[int, WatchedLog] = {}
        self.late_effects = 0
        self._of_projects: dict[int, list[WatchedLog]] = {}
        self.store: LookedAt | None = None
        self.on_takeover: Callable[[Process], None] = lambda _: None

    def named(self, label: str) -> WatchedLog | None:
        return next((log for log in self.logs.values() if log.label == label), None)

    def of(self, run_id: str) -> WatchedLog | None:
        return next((log for log in self.logs.values() if log.run_id == run_id), None)

    def watch(self, process: Process, appends: list[Append]) -> None:
        """Checks what a process has committed. Raises AssertionError for a lie."""
        store = there(self.store)
        for run_no in dict.fromkeys(batch.run_no for batch in appends):
            log = self.logs[run_no]
            stored = at_once(read_run(store, log.run_id, after=len(log.events)))
            first = 0
            for batch in [batch for batch in appends if batch.run_no == run_no]:
                end = first + len(batch.events)
                log.append(batch, process, stored.events[first:end])
                first = end
            require(broken_by(log, stored))
        self._see_claims(store.db, process)
        for project in at_once(store.projects()):
            self._check_money(project)
        if self._limits.are_of_runs:
            self._check_limits(store.db)

    def _see_claims(self, db: sqlite3.Connection, process: Process) -> None:
        found = db.execute("SELECT no, id, fence, owner, project_id FROM run ORDER BY no")
        for no, run_id, fence, owner, project_id in found:
            log = self.logs.get(no)
            if log is None:
                request = db.execute("SELECT request FROM run_request WHERE run_no = ?", (no,)).fetchone()[0]
                begun = msgspec.json.decode(request, type=SegmentSpec)
                is_budgeted = self._limits.budget_usd is not None
                log = WatchedLog(no, run_id, begun, budgeted=is_budgeted, is_timed=self.is_timed)
                log.fence, log.holder, log.owner = fence, process, owner
                self.logs[no] = log
                self._of_projects.setdefault(project_id, []).append(log)
            elif fence != log.fence:
                before = log.holder
                log.claim(fence, process, owner)
                if before is not None and before is not process:
                    self.on_takeover(before)

    def _check_money(self, project: Project) -> None:
        """No call costs more than was held for it here, so a budget is never passed."""
        require(broken_in_sum(project, self._of_projects.get(project.id, [])))
        if (most_usd := project.budget_usd) is not None:
            promised = add_usd(project.spent_usd, project.reserved_usd)
            assert promised <= most_usd, f"{promised} dollars of {most_usd} are spent or held"

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
            assert most is None or count <= most, f"{count} runs of {path} go on at once, and {most} may"
        most, at_once = self._limits.of_project, max(of_projects.values(), default=0)
        assert most is None or at_once <= most, f"{at_once} runs of a project go on at once, and {most} may"
        self.most_at_once = max(self.most_at_once, at_once)

    def effect(self, label: str, address: Address, process: Process) -> None:
        """Something was done for a step. Raises AssertionError if the log says that it has ended well."""
        log = there(self.named(label))
        if process is not log.holder:
            # Others go on with the run, and nobody has told it yet: no fence reaches what is outside.
            self.late_effects += 1
            return
        if log.status == "paused" or (log.ended and log.waited):
            # Code may run one append ahead: that the run was taken up is on its way, or comes too late.
            return
        assert not log.ended, f"{log.run_id} has ended, and {address} goes on"
        done = address in log.walked.completed
        assert not done, f"{log.run_id}: {address} has ended well and is done once more"

    def without_room(self) -> int:
        """How many steps have failed for want of memory."""
        steps = [step for log in self.logs.values() for step in log.fold.trace().steps]
        return sum((step.error_context or {}).get("code") == "RUN_LIMIT" for step in steps)

    def check_all(self) -> None:
        """Holds every run against its log. Raises AssertionError."""
        store = there(self.store)
        for log in self.logs.values():
            whole = at_once(read_whole(store, log.run_id))
            result, _ = at_once(store.outcome(log.no))
            log.check_whole(whole, result)
        for project in at_once(store.projects()):
            self._check_money(project)
            assert not project.reserved_usd, f"{project.reserved_usd} dollars are held for ended runs"
