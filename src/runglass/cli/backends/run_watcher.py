"""A run on a server: begun, followed to its end, and its result fetched, over losses of the server.

The run is queued as a job, whose answer names it at once. All attempts to queue it carry one Idempotency-Key,
and the result is asked for again until it comes: a server that is killed and started again costs time, but no
run. Ctrl-C once stops watching and leaves the run alone, twice cancels it.
"""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runglass.cli.exit_codes import Exit
from runglass.cli.terminal.output import complain, note
from runglass.client.core import requests, run_requests
from runglass.client.core.responses import PASSING, backoff_s
from runglass.errors import PASSED_ON, APIConnectionError, APIError, APITimeoutError, RunglassError, api_error
from runglass.log.events import FlowFailed, StreamEvent
from runglass.wire.run_api import CompletedResult, JobAccepted, JobState, Version

if TYPE_CHECKING:
    from runglass.client.aio.client import AsyncClient

T = TypeVar("T")

GRACE_S = 2.0
"""Seconds in which a second Ctrl-C cancels the run."""


class WatchedRun:
    """A run of `flow` that has not begun yet. `run_id` is None until the server has named it.

    A server that is lost is asked again after `longest_wait_s` at most.
    """

    def __init__(
        self,
        client: "AsyncClient",
        flow: str,
        *,
        message: str | None,
        parameters: Mapping[str, Any] | None = None,
        block_overrides: Mapping[str, Mapping[str, Any]] | None = None,
        version: Version = "production",
        trace: bool = False,
        longest_wait_s: float = 2.0,
    ) -> None:
        self.run_id: str | None = None
        self._client = client
        self._longest_wait_s = longest_wait_s
        # One request for all attempts to queue the run, so that they are one call under one key.
        self._call = run_requests.job(
            client.flow(flow)._address,
            message=message,
            parameters=parameters,
            block_overrides=block_overrides,
            version=version,
            trace=trace,
        )

    async def result(
        self,
        on_event: Callable[[StreamEvent], None] = lambda event: None,
        *,
        on_named: Callable[[str], None] = lambda run_id: None,
    ) -> CompletedResult:
        """Begins the run and waits for its result; `on_event` gets each event once, as it comes.

        `on_named` hears the run's id first. Raises APIError where the run is refused or fails, and
        APIConnectionError where no server was reached; one that is lost later is waited for. Cancelling this
        leaves the run going on.
        """
        accepted = await self._queue()
        self.run_id = accepted.execution_id
        on_named(self.run_id)
        state, last = await self._follow(self.run_id, on_event)
        if state.status != "completed":
            raise _failure(state, last)
        return CompletedResult(
            result=state.result,
            flow_id=accepted.flow_id,
            block_count=accepted.block_count,
            execution_id=self.run_id,
        )

    async def cancel(self) -> None:
        """Ends the run, which has been named. Raises as `AsyncRun.cancel` does."""
        assert self.run_id is not None
        await self._client.run(self.run_id).cancel()

    async def _queue(self) -> JobAccepted:
        def queue() -> Awaitable[JobAccepted]:
            return self._client._transport.call(self._call, timeout=None)

        try:
            return await queue()
        except (APIConnectionError, APITimeoutError) as error:
            # Without a connection no run has begun. After one, a repeat under the same key finds the run.
            if isinstance(error, APIConnectionError) and not error.may_have_begun:
                raise
        return await self._until_answered(queue)

    async def _follow(
        self, run_id: str, on_event: Callable[[StreamEvent], None]
    ) -> tuple[JobState, StreamEvent | None]:
        """The final state of the job, and the last event that was received."""
        last: StreamEvent | None = None
        failures = 0
        while True:
            try:
                async for event in self._client.run(run_id).live_trace():
                    # A stream that is opened anew begins with the first event.
                    if last is None or event.seq > last.seq:
                        last = event
                        on_event(event)
            except APIConnectionError as error:
                failures += 1
                if failures == 1:
                    note(f"the events cannot be followed at the moment: {error}")
            state = await self._until_answered(
                lambda: self._client._transport.call(requests.job(self._call.path, run_id), timeout=None)
            )
            if state.status in ("completed", "failed"):
                return state, last
            await asyncio.sleep(backoff_s(failures, most_s=self._longest_wait_s))

    async def _until_answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of the server, asked again while it is lost. Raises APIError where it refuses."""
        failures = 0
        while True:
            try:
                return await ask()
            except (APIConnectionError, APITimeoutError, APIError) as error:
                if isinstance(error, APIError) and error.status not in PASSING:
                    raise
                failures += 1
                if failures == 1:
                    note(f"the server is lost, and asked again until it answers: {error}")
            await asyncio.sleep(backoff_s(failures, most_s=self._longest_wait_s))


def _failure(state: JobState, last: StreamEvent | None) -> APIError:
    """The error that the caller of `execute` would have got."""
    if not isinstance(last, FlowFailed):
        reason = "the run was cancelled" if state.error == "cancelled" else str(state.error)
        return api_error("STEP_FAILED", reason, execution_id=state.execution_id)
    error = last.error or {}
    code = error.get("code")
    return api_error(
        code if code in PASSED_ON else "STEP_FAILED",
        str(state.error),
        execution_id=state.execution_id,
        step_id=last.step_id,
        details={"error": error},
    )


async def until_interrupted(run: "WatchedRun", watching: Coroutine[Any, Any, T]) -> T:
    """The result of `watching`, or its error. Ctrl-C cancels `watching` and raises click's Exit."""
    with _ctrl_c() as pressed:
        watch = asyncio.ensure_future(watching)
        press = asyncio.create_task(pressed.wait())
        try:
            await asyncio.wait({watch, press}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            press.cancel()
            watch.cancel()
            await asyncio.wait({watch, press})
        if not watch.cancelled():
            return watch.result()
        if not pressed.is_set():
            raise asyncio.CancelledError
        pressed.clear()
        is_pressed_again = await _offer_cancel(run, pressed)
    # The handler is removed by now, so one more Ctrl-C ends a command that waits for a server in vain.
    if is_pressed_again:
        try:
            await run.cancel()
        except RunglassError as error:
            complain(f"the run could not be cancelled: {error}")
        else:
            note(f"run {run.run_id} is cancelled")
    raise click.exceptions.Exit(Exit.INTERRUPTED)


async def _offer_cancel(run: "WatchedRun", pressed: asyncio.Event) -> bool:
    if run.run_id is None:
        note("stopped before the server had named a run; if one has begun, `runglass runs list` shows it")
        return False
    note(f"the run continues; Ctrl-C again within {GRACE_S:g} s cancels it")
    note(f"follow it: runglass runs tail {run.run_id}")
    note(f"cancel it: runglass runs cancel {run.run_id}")
    try:
        return await asyncio.wait_for(pressed.wait(), GRACE_S)
    except TimeoutError:
        return False


@contextmanager
def _ctrl_c() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C sets, where this thread of this process receives signals."""
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    is_main_thread = threading.current_thread() is threading.main_thread()
    # A shell starts its background jobs with the signal ignored.
    if not is_main_thread or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield pressed
        return
    loop.add_signal_handler(signal.SIGINT, pressed.set)
    try:
        yield pressed
    finally:
        loop.remove_signal_handler(signal.SIGINT)
