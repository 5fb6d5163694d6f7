# Written from aio/runs.py by tools/twins.py; edit that.
"""A run as the caller sees it: its trace, one step of it, its events as they come, its end; and a queued one.

Only describes calls and hands them to its transport.
"""

import uuid
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, overload

from runglass.client.blocking.native import text_of
from runglass.client.core import requests, run_requests
from runglass.client.core.connection import bound_s, seconds_of
from runglass.client.core.requests import Attempt, FlowAddress
from runglass.client.core.responses import Deadline, Download
from runglass.client.core.sessions import session_of_call
from runglass.client.core.stream_cursor import TailCursor
from runglass.errors import APITimeoutError, api_error
from runglass.log.events import StreamEvent
from runglass.log.fold import RunFold
from runglass.log.trace import RunSummary, StepAttempts, StepTrace, Trace
from runglass.wire.run_api import ExportFormat, JobAccepted, JobState

if TYPE_CHECKING:  # for names alone: the transport loads the HTTP library, few programs ask for these types
    from runglass.client.transport.blocking import SyncTransport
    from runglass.diff.run_diff import RunDiff
    from runglass.outlines.outline import OutlinePage


class Run:
    """One execution, looked at by its id. Making one asks the server nothing; each method does."""

    def __init__(self, transport: "SyncTransport", path: str, execution_id: str) -> None:
        self.execution_id = execution_id
        self._transport = transport
        self._path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.execution_id!r})"

    def __str__(self) -> str:
        return text_of(self)

    def summary(self, *, timeout: float | None = None) -> RunSummary:
        """The run as it stands: status, times, totals and error, without its steps.

        `timeout` is that of `trace`. Raises FlowNotFoundError for an unknown run, APITimeoutError,
        APIConnectionError.
        """
        return self._transport.call(requests.summary(self._path), timeout=timeout)

    def outline(
        self,
        *,
        after: int | None = None,
        limit: int | None = None,
        seq: int | None = None,
        timeout: float | None = None,
    ) -> "OutlinePage":
        """The tree of the run as rows in pre-order: times, tokens and cost, without content.

        Up to `limit` rows (50,000; 200,000 at most) behind row `after`. For a further page pass the `seq` of
        the first: a page with another `seq` is of another outline, of a run that has gone on. `timeout` is
        that of `trace`.

        Raises FlowNotFoundError for an unknown run, APITimeoutError, APIConnectionError; ValueError, before
        anything is sent, for impossible numbers.
        """
        call = requests.outline(self._path, after=after, limit=limit, seq=seq)
        return self._transport.call(call, timeout=timeout)

    def trace(self, *, timeout: float | None = None) -> Trace:
        """The whole trace, with the latest attempt of each step and loop iteration.

        `timeout` bounds the call in seconds by the wall clock, retries included; None takes the client's,
        `float("inf")` no bound. Snapshots decode when they are first read.

        Raises FlowNotFoundError for an unknown run, APITimeoutError, APIConnectionError.
        """
        return self._transport.call(requests.trace(self._path), timeout=timeout)

    @overload
    def step_trace(
        self,
        step_id: str,
        *,
        attempt: Literal["latest"] | int = "latest",
        loop_index: int | Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> StepTrace: ...

    @overload
    def step_trace(
        self,
        step_id: str,
        *,
        attempt: Literal["all"],
        loop_index: int | Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> StepAttempts: ...

    def step_trace(
        self,
        step_id: str,
        *,
        attempt: Attempt = "latest",
        loop_index: int | Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> StepTrace | StepAttempts:
        """One attempt of a step: the latest or number `attempt`; with `attempt="all"` every one.

        `loop_index` names the iteration of a step inside a loop, for nested loops a tuple from the outer loop
        in; without it `attempt` speaks of the newest iteration. `timeout` is that of `trace`.

        Raises FlowNotFoundError for an unknown run, step, attempt or iteration, APITimeoutError,
        APIConnectionError; ValueError, before anything is sent, for an impossible `attempt` or `loop_index`.
        """
        call = requests.step_trace(self._path, step_id, attempt=attempt, loop_index=loop_index)
        return self._transport.call(call, timeout=timeout)

    def diff(
        self, other: "Run | str | uuid.UUID", *, all: bool = False, timeout: float | None = None
    ) -> "RunDiff":
        """What differs between this run and another one, attempt by attempt, in the order of the flow.

        `other` is a run or the id of one. `all=True` lists the attempts that do not differ, too. The runs may
        be of other versions or flows; attempts are paired by step, iteration and number. `timeout` is that of
        `trace`.

        Raises FlowNotFoundError where one of the runs is unknown, APITimeoutError, APIConnectionError.
        """
        other_id = other.execution_id if isinstance(other, Run) else other
        path = requests.run_path(self.execution_id)
        return self._transport.call(requests.diff(path, other_id, all=all), timeout=timeout)

    def live_trace(self) -> Generator[StreamEvent, None, None]:
        """Every event of the run from the first one, then each as it happens, until the run has ended.

        A lost connection is opened again after the last event, so that none is missing and none comes twice.
        Types that this version does not know come as UnknownEvent. Closing the generator closes the
        connection.

        Raises FlowNotFoundError, AuthenticationError and their like from the first event on, and
        APIConnectionError when the stream cannot be had back.
        """
        return self._transport.follow(self._cursor())

    def export(self, format: ExportFormat = "json") -> Generator[bytes, None, None]:
        """The run as a file, part by part: write each part out, and no more is in memory than one.

        `jsonl` has a header and then each event as it is stored, one on each line; `json` is one document
        that has the trace, too; `client.import_run` takes both. `otlp` is OTLP/JSON, `perfetto` opens in
        Perfetto's viewer. Closing the generator closes the connection.

        Raises ValueError for another format, FlowNotFoundError, and APIConnectionError where the answer
        breaks off: what came of it before is not the whole run.
        """
        call = requests.export(self._path, format)
        return self._transport.follow(Download(call, self._transport.endpoint.max_retries))

    def wait(self, timeout: float | None = None) -> RunSummary:
        """The summary of the run once it has ended; waits on the event stream, without polling.

        `timeout` bounds the wait in seconds by the wall clock; None waits as long as it takes, also while the
        run is paused. How it ended is the summary's `status`; a failed run raises nothing.

        Raises APITimeoutError, after which the run still goes on, FlowNotFoundError, APIConnectionError.
        """
        fold = RunFold(RunSummary(id=self.execution_id, flow_id="", status="pending"))
        events = self._transport.follow(self._cursor(), timeout=bound_s(timeout))
        with closing(events):
            for event in events:
                fold.apply(event)
        return fold.summary

    def rerun(
        self,
        *,
        version: int | Literal["same", "production"] = "same",
        block_overrides: run_requests.Overrides | None = None,
        session_id: str | uuid.UUID | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> "Run":
        """Starts a new run from the input that this one was given, and returns it without waiting.

        `version` is that of this run (`"same"`; of a run of the draft, the draft as it is now), the
        `"production"` version, or a number, 0 for the draft. `block_overrides` are those of the new run
        alone. Under an `idempotency_key` that was sent before, within 24 hours, it is the run from then.
        `timeout` is that of `trace`.

        Raises FlowExecutionError with the code INPUT_NOT_KEPT where the capture mode kept no input, or not
        the whole of it, FlowNotFoundError, PermissionDeniedError, ValueError, APITimeoutError,
        APIConnectionError.
        """
        call = run_requests.rerun(
            self._path,
            version=version,
            block_overrides=block_overrides,
            session_id=session_of_call(session_id, self._transport.endpoint.session_id),
            idempotency_key=idempotency_key,
        )
        accepted = self._transport.call(call, timeout=timeout)
        path = requests.run_path(accepted.execution_id)
        return Run(self._transport, path, accepted.execution_id)

    def cancel(self, *, timeout: float | None = None) -> None:
        """Ends the run, which is cancelled when this returns. `timeout` is that of `trace`.

        Raises RequestError for a run that has ended, FlowNotFoundError, PermissionDeniedError,
        APITimeoutError, APIConnectionError.
        """
        self._transport.call(requests.cancel(self._path), timeout=timeout)

    def delete(self, *, timeout: float | None = None) -> None:
        """Deletes the run for good, with all that is known of it; one that goes on is cancelled first.

        When this returns, the run is not found any more. The key must have the role `admin`. `timeout` is
        that of `trace`.

        Raises FlowNotFoundError for an unknown run, also where it was this call that deleted it and its
        answer was lost on the way, PermissionDeniedError, APITimeoutError, APIConnectionError.
        """
        self._transport.call(requests.delete(self._path), timeout=timeout)

    def _cursor(self) -> TailCursor:
        attempts = self._transport.endpoint.max_retries + 1
        return TailCursor(f"{self._path}/trace/stream", first_attempts=attempts)


class Job:
    """A run that was queued. Its `run` can be read and followed from now on."""

    def __init__(
        self, transport: "SyncTransport", flow: FlowAddress, path: str, accepted: JobAccepted
    ) -> None:
        self.execution_id = accepted.execution_id
        self.session_id = accepted.session_id
        self.run = Run(transport, requests.run_path(self.execution_id, flow=flow), self.execution_id)
        self._transport = transport
        self._path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.execution_id!r})"

    def poll(self, *, timeout: float | None = None) -> JobState:
        """How far the job is: pending, running, completed or failed, with its result or error.

        `timeout` bounds the call in seconds by the wall clock, retries included; None takes the client's.

        Raises FlowNotFoundError, APITimeoutError, APIConnectionError.
        """
        return self._transport.call(requests.job(self._path, self.execution_id), timeout=timeout)

    def wait(self, timeout: float | None = None, *, poll_interval: float = 1.0) -> Any:
        """The job's result, once it has completed; asked for every `poll_interval` seconds.

        `timeout` bounds the wait in seconds by the wall clock; None waits as long as it takes.
        `run.wait()` does the same without asking over and over, but brings no result.

        Raises FlowExecutionError where the run fails or is cancelled, APITimeoutError, after which the job
        still goes on, and APIConnectionError.
        """
        deadline = Deadline(bound_s(timeout))
        interval_s = seconds_of(poll_interval)
        while True:
            left_s = deadline.bound_s()
            if left_s == 0:
                raise APITimeoutError(
                    f"job {self.execution_id!r} did not end within {deadline.seconds:g} s; it is still active"
                )
            state = self.poll(timeout=left_s)
            if state.status == "completed":
                return state.result
            if state.status == "failed":
                # The whole error of a job whose run was cancelled; that of a failed one is a sentence.
                how = "was cancelled" if state.error == "cancelled" else f"failed: {state.error}"
                raise api_error(
                    "STEP_FAILED",
                    f"job {self.execution_id!r} {how}",
                    execution_id=self.execution_id,
                    details={"error": state.error},
                )
            self._transport.sleep(max(0.0, min(interval_s, deadline.left_s())))
