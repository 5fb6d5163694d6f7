"""A queued run as the caller sees it: ask how far it is, or wait for its result. Blocking, and on asyncio.

Both classes only describe calls and hand them to their transport; `make check` proves them one program.
"""

import math
from typing import TYPE_CHECKING, Any

from runglass.client.api.runs import AsyncRun, Run
from runglass.client.core import requests
from runglass.client.core.connection import bound_s, seconds_of
from runglass.client.core.requests import FlowAddress
from runglass.client.core.responses import Deadline
from runglass.errors import APIError, APITimeoutError, api_error
from runglass.wire.run_api import JobState

if TYPE_CHECKING:  # for names alone: the transports load the HTTP library
    from runglass.client.transport.blocking import SyncTransport
    from runglass.client.transport.on_asyncio import AsyncTransport


class Job:
    """A run that was queued. Its `run` can be read and followed from now on."""

    def __init__(self, transport: "SyncTransport", flow: FlowAddress, path: str, execution_id: str) -> None:
        self.execution_id = execution_id
        self.run = Run(transport, requests.run_path(execution_id, flow=flow), execution_id)
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
            state = self.poll(timeout=_poll_s(deadline, self))
            if state.status == "completed":
                return state.result
            if state.status == "failed":
                raise _failure(state)
            self._transport.sleep(max(0.0, min(interval_s, deadline.left_s())))


class AsyncJob:
    """A run that was queued. Its `run` can be read and followed from now on."""

    def __init__(self, transport: "AsyncTransport", flow: FlowAddress, path: str, execution_id: str) -> None:
        self.execution_id = execution_id
        self.run = AsyncRun(transport, requests.run_path(execution_id, flow=flow), execution_id)
        self._transport = transport
        self._path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.execution_id!r})"

    async def poll(self, *, timeout: float | None = None) -> JobState:
        """How far the job is: pending, running, completed or failed, with its result or error.

        `timeout` bounds the call in seconds by the wall clock, retries included; None takes the client's.

        Raises FlowNotFoundError, APITimeoutError, APIConnectionError.
        """
        return await self._transport.call(requests.job(self._path, self.execution_id), timeout=timeout)

    async def wait(self, timeout: float | None = None, *, poll_interval: float = 1.0) -> Any:
        """The job's result, once it has completed; asked for every `poll_interval` seconds.

        `timeout` bounds the wait in seconds by the wall clock; None waits as long as it takes.
        `run.wait()` does the same without asking over and over, but brings no result.

        Raises FlowExecutionError where the run fails or is cancelled, APITimeoutError, after which the job
        still goes on, and APIConnectionError.
        """
        deadline = Deadline(bound_s(timeout))
        interval_s = seconds_of(poll_interval)
        while True:
            state = await self.poll(timeout=_poll_s(deadline, self))
            if state.status == "completed":
                return state.result
            if state.status == "failed":
                raise _failure(state)
            await self._transport.sleep(max(0.0, min(interval_s, deadline.left_s())))


def _poll_s(deadline: Deadline, job: Job | AsyncJob) -> float | None:
    """The time left for one more poll; None for the client's own bound. Raises APITimeoutError."""
    if math.isinf(deadline.seconds):
        return None
    if deadline.left_s() <= 0:
        raise APITimeoutError(
            f"job {job.execution_id!r} did not end within {deadline.seconds:g} s; it still goes on"
        )
    return deadline.left_s()


def _failure(state: JobState) -> APIError:
    # The whole error of a job whose run was cancelled; that of a failed one is a sentence.
    how = "was cancelled" if state.error == "cancelled" else f"failed: {state.error}"
    return api_error(
        "STEP_FAILED",
        f"job {state.execution_id!r} {how}",
        execution_id=state.execution_id,
        details={"error": state.error},
    )
