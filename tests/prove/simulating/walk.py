"""One pass of a run over its flow: what has ended, and what may come next for each step.

A pass begins where a run begins, and anew for the steps that a caller runs again after a pause.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from runglass.engine.journal.resume import WORKER_LOST
from runglass.engine.steps.outcomes import PROVIDER_RETRY
from runglass.errors import RETRY_AFTER
from runglass.flows.flow import (
    ConditionStep,
    Flow,
    LeafStep,
    LlmStep,
    LoopStep,
    WaitStep,
    find_step,
    leaves,
    within,
)
from runglass.log.events import (
    LoopCompleted,
    LoopStarted,
    StepCompleted,
    StepError,
    StepEvent,
    StepRetrying,
    StepSkipped,
    StepStarted,
)
from runglass.log.fold import Address
from runglass.store.records import Checkpoint
from tests.fakes import CRASH_RETRIES
from tests.laws.log import Log, error_code
from tests.prove.simulating.flows import LARGE, UNKNOWN

FINAL = frozenset({"TEMPLATE_ERROR"})
"""Codes of failures after which there is no further attempt."""
PROMPT = timedelta(seconds=1)
"""So long after it is due a wait ends at the latest."""


class Pass:
    """What the events of a run, since each step's pass began, say of it. Raises AssertionError for a lie.

    `log` has them, and sees to it that each event may come where it does. With `is_timed` the clocks of all
    processes are right.
    """

    def __init__(self, flow: Flow, log: Log, *, is_timed: bool) -> None:
        self._flow = flow
        self._log = log
        self._is_timed = is_timed
        self._due: dict[Address, datetime] = {}
        """When the next attempt of a step may begin."""
        self._ends: dict[Address, datetime] = {}
        """When a wait is over."""
        self._skipped: set[Address] = set()
        self.completed: set[Address] = set()
        self.lost: dict[Address, str] = {}
        self.decisions: dict[Address, Any] = {}
        self._loops: dict[Address, int] = {}
        self._crashes: Counter[Address] = Counter()
        self._failures: Counter[Address] = Counter()
        # Since the step last ended well, be it in a pass before: after a crash nobody can tell them apart.
        self._all_crashes: Counter[Address] = Counter()
        self._all_failures: Counter[Address] = Counter()

    def drop(self, step_ids: Iterable[str]) -> None:
        """A new pass of these steps begins; not of one that waited for tools, which goes on."""
        dropped = set(step_ids)
        for known in (self.completed, self._skipped):
            known.difference_update([each for each in known if each.step_id in dropped])
        for counted in (self.lost, self._loops, self._crashes, self._failures, self._due, self._ends):
            for address in [address for address in counted if address.step_id in dropped]:
                if address not in self._log.open:
                    del counted[address]
        for address in [address for address in self.decisions if f"{address.step_id}?" in dropped]:
            del self.decisions[address]

    def keep(self, kept: Checkpoint) -> None:
        """Notes a decision; there is one for each container and iteration."""
        if not kept.step_id.endswith("?"):
            return
        path = tuple(map(int, kept.loop_path.split(","))) if kept.loop_path else None
        address = Address(kept.step_id[:-1], path)
        assert address not in self.decisions, f"{address} has decided already"
        self.decisions[address] = msgspec.json.decode(kept.data)

    def check_skipped(self) -> None:
        """Each leaf of a branch that was not taken is skipped in the iteration of its condition."""
        expected = set()
        for address, holds in self.decisions.items():
            step = find_step(self._flow, address.step_id)
            if isinstance(step, ConditionStep):
                not_taken = step.else_ if holds else step.then
                expected |= {Address(leaf.id, address.loop_path) for leaf in leaves(not_taken)}
        assert self._skipped == expected, f"skipped are {self._skipped}, not {expected}"

    def take(self, event: StepEvent) -> None:
        address = Address(event.step_id, event.loop_path)
        at = datetime.fromisoformat(event.at)
        assert event.loop_index == (event.loop_path[-1] if event.loop_path else None), f"{address}"
        match event:
            case StepSkipped():
                self._skipped.add(address)
            case StepStarted():
                self._starts(address, at)
            case LoopStarted():
                items = self.decisions.get(address)
                assert items is not None, f"loop {address} has begun and not decided"
                assert len(items) == event.iterations, f"loop {address} is of {items}"
                loop = find_step(self._flow, event.step_id)
                assert isinstance(loop, LoopStep)
                assert event.step_ids == [leaf.id for leaf in leaves(loop.steps)], f"loop {address}"
                self._loops[address] = event.iterations
            case LoopCompleted():
                assert self._loops.get(address) == event.iterations, f"loop {address} has not begun so"
            case StepCompleted():
                self.completed.add(address)
                if self._is_timed and address in self._ends:
                    # However many processes have waited, one after the other.
                    assert at >= self._ends[address], f"{address} has waited too short"
                    late = at - max(self._ends[address], self._due[address])
                    assert late <= PROMPT, f"{address} has waited {late} too long"
                self._all_crashes[address] = self._all_failures[address] = 0
            case StepRetrying():
                self._fails(address, error_code(event), lost=False)
                self._check_delay(address, event)
                self._due[address] = at + timedelta(milliseconds=event.delay_ms)
            case StepError():
                self._fails(address, error_code(event), lost=True)
                self.lost[address] = error_code(event)

    def _starts(self, address: Address, at: datetime) -> None:
        step = find_step(self._flow, address.step_id)
        if self._is_timed and address in self._due:
            assert at >= self._due[address], f"{address} is tried again before its delay is over"
        self._due[address] = at
        if isinstance(step, WaitStep):
            self._ends.setdefault(address, at + timedelta(milliseconds=step.ms))

    def _check_delay(self, address: Address, event: StepRetrying) -> None:
        """It grows from failure to failure, and is no shorter than a provider asked for."""
        step = find_step(self._flow, address.step_id)
        if isinstance(step, LeafStep) and error_code(event) not in (WORKER_LOST, "CANCELLED"):
            retry = step.retry or PROVIDER_RETRY
            asked_ms = (event.error or {}).get(RETRY_AFTER) or 0
            failures = self._failures[address], self._all_failures[address]
            expected = {max(retry.delay_ms(count), asked_ms) for count in failures}
            assert event.delay_ms in expected, f"{address} is delayed by {event.delay_ms} ms, not {expected}"

    def _fails(self, address: Address, code: str, *, lost: bool) -> None:
        step = find_step(self._flow, address.step_id)
        assert step is not None
        assert code != "INTERNAL_ERROR", f"{address}: an error of the engine itself"
        if code == "TEMPLATE_ERROR":
            assert UNKNOWN in (step.input or {}).values(), f"{address} does not see what it names"
        if code == "RUN_LIMIT":
            assert address.step_id.startswith(LARGE), f"{address} fills no memory"
        if code == WORKER_LOST:
            self._crashes[address] += 1
            self._all_crashes[address] += 1
            crashes = self._crashes[address]
            if lost and not self._around_is_lost(address):
                assert not isinstance(step, WaitStep), f"{address} only waits and is given up"
                crashes = self._all_crashes[address]
                assert crashes > CRASH_RETRIES, f"{address} is given up after {crashes} crashes"
            elif not lost:
                waits = isinstance(step, WaitStep)
                assert waits or crashes <= CRASH_RETRIES, f"{address} goes on after {crashes} crashes"
        elif code != "CANCELLED" and isinstance(step, LeafStep):
            self._failures[address] += 1
            self._all_failures[address] += 1
            tries = retries_of(step, code)
            failures = self._failures[address]
            if lost:
                failures = self._all_failures[address]
                assert failures >= tries, (
                    f"{address} is lost after {failures} failures, {tries} are its right"
                )
            else:
                assert failures < tries, f"{address} is tried again after {failures} failures of {tries}"

    def _around_is_lost(self, address: Address) -> bool:
        """Whether another step was lost, and with it a container that holds both."""
        others = {other.step_id for other in self.lost if other != address}
        steps = [each for top in self._flow.steps for each in within(top)]
        inside = [{each.id for each in within(step)} for step in steps if not isinstance(step, LeafStep)]
        return any(address.step_id in inner and others & inner for inner in inside)


def retries_of(step: LeafStep, code: str) -> int:
    """How often the step may be tried in all, where it fails with this code."""
    if code in FINAL:
        return 1
    if step.retry is None and isinstance(step, LlmStep) and code == "RATE_LIMITED":
        return PROVIDER_RETRY.max_attempts
    return step.retry.max_attempts if step.retry else 1
