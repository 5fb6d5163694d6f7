"""A run on a server: begun, followed to its end, and its result fetched, over losses of the server.

The run is queued as a job, whose answer names it at once. All attempts to queue it carry one Idempotency-Key,
and the result is asked for again until it comes: a server that is killed and started again costs time, but no
run. Ctrl-C once stops watching and leaves the run alone, twice cancels it.
"""

import math
import time
from collections.abc import Callable
from typing import TypeVar

from runglass.cli.terminal.output import complain, note
from runglass.client import Client
from runglass.client.core import requests
from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import PASSING, Deadline, backoff_s
from runglass.errors import PASSED_ON, APIConnectionError, APIError, APITimeoutError, RunglassError, api_error
from runglass.log.events import FlowFailed, StreamEvent
from runglass.wire.run_api import CompletedResult, JobAccepted, JobState

T = TypeVar("T")

GRACE_S = 2.0
"""Seconds in which a second Ctrl-C cancels the run."""


class WatchedRun:
    """The run that `call` queues. `run_id` is None until the server has named it.

    A server that is lost is asked again after `longest_wait_s` at most. After `timeout_s` all waiting ends.
    """

    def __init__(
        self,
        client: Client,
        call: RequestSpec[JobAccepted],
        *,
        timeout_s: float = math.inf,
        longest_wait_s: float = 2.0,
    ) -> None:
        self.run_id: str | None = None
        self._client = client
        self._deadline = Deadline(timeout_s)
        self._longest_wait_s = longest_wait_s
        self._call = call

    def result(
        self,
        on_event: Callable[[StreamEvent], None] = lambda event: None,
        *,
        on_named: Callable[[str], None] = lambda run_id: None,
    ) -> CompletedResult:
        """Begins the run and waits for its result; `on_event` gets each event once, as it comes.

        `on_named` hears the run's id first. Raises APIError where the run is refused or fails,
        APIConnectionError where no server was reached, and APITimeoutError; a server that is lost later is
        waited for. An exception leaves the run going on.
        """
        try:
            accepted = self._call_once(self._call)
        except (APIConnectionError, APITimeoutError) as error:
            # Without a connection no run has begun. After one, a repeat under the same key finds the run.
            if isinstance(error, APIConnectionError) and not error.may_have_begun:
                raise
            accepted = self._until_answered(self._call)
        self.run_id = accepted.execution_id
        on_named(self.run_id)
        last: StreamEvent | None = None
        state: JobState | None = None
        failures = 0
        while state is None or state.status not in ("completed", "failed"):
            if state is not None:
                self._wait(failures)
            try:
                cursor = self._client.run(self.run_id)._cursor()
                for event in self._client._transport.follow(cursor, timeout=self._left_s()):
                    # A stream that is opened anew begins with the first event.
                    if last is None or event.seq > last.seq:
                        last = event
                        on_event(event)
            except APIConnectionError as error:
                failures += 1
                if failures == 1:
                    note(f"the events cannot be followed at the moment: {error}")
            except APITimeoutError:
                # Of this cursor alone, which speaks of the run in other words.
                self._left_s()
            state = self._until_answered(requests.job(self._call.path, self.run_id))
        if state.status == "failed":
            raise _failure(state, last)
        return CompletedResult(
            result=state.result,
            flow_id=accepted.flow_id,
            block_count=accepted.block_count,
            execution_id=self.run_id,
        )

    def _until_answered(self, call: RequestSpec[T]) -> T:
        """The answer of the server, asked again while it is lost. Raises APIError where it refuses."""
        failures = 0
        while True:
            try:
                return self._call_once(call)
            except (APIConnectionError, APITimeoutError, APIError) as error:
                if isinstance(error, APIError) and error.status not in PASSING:
                    raise
                failures += 1
                if failures == 1:
                    note(f"the server is lost, and asked again until it answers: {error}")
            self._wait(failures)

    def _call_once(self, call: RequestSpec[T]) -> T:
        transport = self._client._transport
        return transport.call(call, timeout=min(self._left_s(), transport.endpoint.timeout_s))

    def _wait(self, failures: int) -> None:
        time.sleep(min(backoff_s(failures, most_s=self._longest_wait_s), self._left_s()))

    def _left_s(self) -> float:
        """The time that is left. Raises APITimeoutError where there is none."""
        if not self._deadline.passed():
            return self._deadline.left_s()
        seconds = f"{self._deadline.seconds:g} s"
        if self.run_id is None:
            raise APITimeoutError(f"the server did not answer within {seconds}")
        goes_on = f"it continues: runglass runs tail {self.run_id}"
        raise APITimeoutError(f"the run did not end within {seconds}; {goes_on}")


def _failure(state: JobState, last: StreamEvent | None) -> APIError:
    """The error that the caller of `execute` would have got."""
    reason = "the run was cancelled" if state.error == "cancelled" else str(state.error)
    error = (last.error or {}) if isinstance(last, FlowFailed) else {}
    return api_error(
        code if (code := error.get("code")) in PASSED_ON else "STEP_FAILED",
        reason,
        execution_id=state.execution_id,
        step_id=last.step_id if isinstance(last, FlowFailed) else None,
        details={"error": error} if error else {},
    )


def leave_or_cancel(client: Client, run_id: str | None, *, options: str) -> None:
    """After Ctrl-C: says how to go on with the run, and cancels it if Ctrl-C is pressed once more."""
    if run_id is None:
        note("stopped before the server had named a run; if one has begun, `runglass runs list` shows it")
        return
    try:
        goes_on = "goes on once the folder is served" if options else "goes on without you"
        note(f"the run {goes_on}; Ctrl-C again within {GRACE_S:g} s cancels it")
        note(f"follow it: runglass runs tail {run_id}{options}")
        note(f"cancel it: runglass runs cancel {run_id}{options}")
        time.sleep(GRACE_S)
    except KeyboardInterrupt:
        try:
            client.run(run_id).cancel()
        except RunglassError as error:
            complain(f"the run could not be cancelled: {error}")
        else:
            note(f"run {run_id} is cancelled")
