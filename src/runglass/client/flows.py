"""A flow as the caller sees it: run it, or look at one of its runs. Blocking, and on asyncio.

Both classes only describe calls and hand them to their transport; a test holds them equal.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from runglass.client import calls
from runglass.client.calls import FlowAddress
from runglass.client.runs import AsyncRun, Run
from runglass.client.transport import AsyncTransport, SyncTransport
from runglass.execution import CompletedResult, Version


class Flow:
    """One flow, named by org, project and slug. Making one asks the server nothing; `execute` does."""

    def __init__(self, transport: SyncTransport, address: FlowAddress) -> None:
        self.org = address.org
        self.project = address.project
        self.slug = address.slug
        self._transport = transport
        self._address = address

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r})"

    def execute(
        self,
        *,
        message: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        block_overrides: Mapping[str, Mapping[str, Any]] | None = None,
        trace: bool = False,
        version: Version = "production",
        timeout: float | None = None,
    ) -> CompletedResult:
        """The result of a run of this flow, once it has ended.

        `message` and `parameters` are the run's inputs; `block_overrides` sets fields of steps for this run
        (`{step_id: {field: value}}`); `trace=True` keeps full snapshots of it. `version` is a published
        version's number, "production" (the draft where nothing is published) or "draft". `timeout` bounds the
        call in seconds by the wall clock, retries included; None takes the client's, `float("inf")` no bound.

        Tried again by itself only where nothing was started: no connection came about, or the server answered
        429 or 503.

        Raises FlowExecutionError for a refused request or a failed run (its `execution_id` leads to the
        trace), FlowNotFoundError, AuthenticationError, RateLimitError; APITimeoutError, after which the run
        may still go on; APIConnectionError; ValueError, before anything is sent, for an impossible `version`.
        """
        call = calls.execute(
            self._address,
            message=message,
            parameters=parameters,
            block_overrides=block_overrides,
            trace=trace,
            version=version,
        )
        return self._transport.call(call, timeout=timeout)

    def run(self, execution_id: str | uuid.UUID) -> Run:
        """The run of this flow with that id. Asks the server nothing yet."""
        return Run(self._transport, calls.run_path(execution_id, flow=self._address), str(execution_id))


class AsyncFlow:
    """One flow, named by org, project and slug. Making one asks the server nothing; `execute` does."""

    def __init__(self, transport: AsyncTransport, address: FlowAddress) -> None:
        self.org = address.org
        self.project = address.project
        self.slug = address.slug
        self._transport = transport
        self._address = address

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r})"

    async def execute(
        self,
        *,
        message: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        block_overrides: Mapping[str, Mapping[str, Any]] | None = None,
        trace: bool = False,
        version: Version = "production",
        timeout: float | None = None,
    ) -> CompletedResult:
        """The result of a run of this flow, once it has ended.

        `message` and `parameters` are the run's inputs; `block_overrides` sets fields of steps for this run
        (`{step_id: {field: value}}`); `trace=True` keeps full snapshots of it. `version` is a published
        version's number, "production" (the draft where nothing is published) or "draft". `timeout` bounds the
        call in seconds by the wall clock, retries included; None takes the client's, `float("inf")` no bound.

        Tried again by itself only where nothing was started: no connection came about, or the server answered
        429 or 503.

        Raises FlowExecutionError for a refused request or a failed run (its `execution_id` leads to the
        trace), FlowNotFoundError, AuthenticationError, RateLimitError; APITimeoutError, after which the run
        may still go on; APIConnectionError; ValueError, before anything is sent, for an impossible `version`.
        """
        call = calls.execute(
            self._address,
            message=message,
            parameters=parameters,
            block_overrides=block_overrides,
            trace=trace,
            version=version,
        )
        return await self._transport.call(call, timeout=timeout)

    def run(self, execution_id: str | uuid.UUID) -> AsyncRun:
        """The run of this flow with that id. Asks the server nothing yet."""
        return AsyncRun(self._transport, calls.run_path(execution_id, flow=self._address), str(execution_id))
