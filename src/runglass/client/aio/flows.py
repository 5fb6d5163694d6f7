"""A flow as the caller sees it: run it, step through it, queue it, or look at its runs.

Only describes calls and hands them on.
"""

import uuid
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Unpack, overload

from runglass.client.aio.native import pages_of
from runglass.client.aio.pauses import AsyncPausedResult, ToolAnswers, events_of, steps_of
from runglass.client.aio.runs import AsyncJob, AsyncRun
from runglass.client.core import requests, run_requests
from runglass.client.core.requests import FlowAddress
from runglass.client.core.run_requests import (
    Attachments,
    ExecuteOptions,
    Messages,
    Overrides,
    Parameters,
    SessionId,
    ToolChoice,
    Tools,
    TraceHeaders,
)
from runglass.client.core.sessions import session_of_call
from runglass.client.core.step_session import StepResult, StepSession
from runglass.client.core.tools import ToolHandler
from runglass.log.events import StreamEvent
from runglass.log.trace import RunStatus, RunSummary
from runglass.wire.run_api import CompletedResult, Version

if TYPE_CHECKING:  # for its name alone: it loads the HTTP library
    from runglass.client.transport.on_asyncio import AsyncTransport


class AsyncFlow:
    """One flow, named by org, project and slug. Making one asks the server nothing; its methods do."""

    def __init__(self, transport: "AsyncTransport", address: FlowAddress) -> None:
        self.org = address.org
        self.project = address.project
        self.slug = address.slug
        self._transport = transport
        self._address = address
        self._id: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._address)!r})"

    @overload
    async def execute(
        self,
        *,
        tools: None = None,
        tool_handler: ToolHandler | None = None,
        **options: Unpack[ExecuteOptions],
    ) -> CompletedResult: ...

    @overload
    async def execute(
        self, *, tools: Tools | None, tool_handler: ToolHandler, **options: Unpack[ExecuteOptions]
    ) -> CompletedResult: ...

    @overload
    async def execute(
        self, *, tools: Tools | None, tool_handler: None = None, **options: Unpack[ExecuteOptions]
    ) -> CompletedResult | AsyncPausedResult: ...

    async def execute(
        self,
        *,
        message: str | None = None,
        messages: Messages | None = None,
        parameters: Parameters | None = None,
        attachments: Attachments | None = None,
        block_overrides: Overrides | None = None,
        trace: bool = False,
        version: Version = "production",
        tools: Tools | None = None,
        tool_choice: ToolChoice | None = None,
        tool_handler: ToolHandler | None = None,
        max_tool_rounds: int = 10,
        session_id: SessionId = None,
        trace_context: TraceHeaders | None = None,
        timeout: float | None = None,
    ) -> CompletedResult | AsyncPausedResult:
        """The result of a run of this flow, once it has ended, or with `tools` perhaps a pause.

        `message` and `parameters` are the run's inputs; instead of `message`, `messages` may be a
        conversation whose last turn is the current message. `attachments` are images by https URL.
        `block_overrides` sets fields of steps for this run (`{step_id: {field: value}}`): each replaces the
        step's whole value, and `"settings.temperature"` sets that one of its settings. `trace=True` keeps
        full snapshots of the run. `version` is a published version's number, "production" (the draft where
        nothing is published) or "draft". `session_id`, a UUID, tags the run; else it has the session of the
        client, or of the innermost `client.session()` around this call. `trace_context` has the headers
        `traceparent` and `tracestate` of a trace that the run is part of, as OpenTelemetry's `inject` writes
        them; it is told in the run's own.

        `tools`, in the OpenAI function format, are offered to the flow's llm steps. When a model calls some,
        `tool_handler(name, arguments)` is asked for the result of each, and what it returns goes to the
        model: text as it is, anything else as JSON. With AsyncClient it may be async, and the calls of a
        round are then answered at the same time. Without a handler the pause is returned, to be taken up by
        `resume`. An exception of the handler is raised as it is; the run stays paused, and
        `error.paused.resume(…)` goes on with it. Arguments that are no JSON object do not reach the handler;
        the model is told.

        `timeout` bounds each request in seconds by the wall clock, retries included; None takes the client's,
        `float("inf")` no bound. A request is tried again after a lost answer, 429, 502, 503 and 504, under
        the same Idempotency-Key, so that the flow is run once.

        Raises RequestError for a refused request, FlowExecutionError for a failed run (its `execution_id`
        leads to the trace), FlowNotFoundError, AuthenticationError, RateLimitError; ToolCallLimitError where
        a model asks for tools in more than `max_tool_rounds` rounds; APITimeoutError, after which the run may
        still go on; APIConnectionError. Before anything is sent: ValueError for invalid arguments, TypeError
        for a handler that cannot be called here.
        """
        execution = run_requests.execution(
            self._address,
            message=message,
            messages=messages,
            parameters=parameters,
            attachments=attachments,
            block_overrides=block_overrides,
            trace=trace,
            version=version,
            tools=tools,
            tool_choice=tool_choice,
            session_id=session_of_call(session_id, self._transport.endpoint.session_id),
            trace_context=trace_context,
        )
        answers = ToolAnswers(tool_handler, max_tool_rounds)
        answer = await self._transport.call(execution.call(), timeout=timeout)
        self._id = answer.flow_id
        if isinstance(answer, CompletedResult):
            return answer
        paused = AsyncPausedResult(self._transport, execution, answer)
        return paused if tool_handler is None else await answers.converse(paused, timeout=timeout)

    async def execute_async(
        self,
        *,
        message: str | None = None,
        messages: Messages | None = None,
        parameters: Parameters | None = None,
        attachments: Attachments | None = None,
        block_overrides: Overrides | None = None,
        trace: bool = False,
        version: Version = "production",
        session_id: SessionId = None,
        trace_context: TraceHeaders | None = None,
        timeout: float | None = None,
    ) -> AsyncJob:
        """Queues a run and returns at once; the job says how far it is and waits for its result.

        The parameters are those of `execute`, without tools: a job cannot pause for them. `timeout` bounds
        the queueing.

        Raises as `execute` does where the job cannot be queued.
        """
        call = run_requests.job(
            self._address,
            message=message,
            messages=messages,
            parameters=parameters,
            attachments=attachments,
            block_overrides=block_overrides,
            trace=trace,
            version=version,
            session_id=session_of_call(session_id, self._transport.endpoint.session_id),
            trace_context=trace_context,
        )
        accepted = await self._transport.call(call, timeout=timeout)
        self._id = accepted.flow_id
        return AsyncJob(self._transport, self._address, call.path, accepted)

    def steps(
        self,
        *,
        message: str | None = None,
        parameters: Parameters | None = None,
        attachments: Attachments | None = None,
        block_overrides: Overrides | None = None,
        input_overrides: Mapping[str, Any] | None = None,
        trace: bool = False,
        version: Version = "production",
        run_remaining: bool = False,
        tools: Tools | None = None,
        tool_choice: ToolChoice | None = None,
        tool_handler: ToolHandler | None = None,
        max_tool_rounds: int = 10,
        session_id: SessionId = None,
        trace_context: TraceHeaders | None = None,
    ) -> AsyncGenerator[StepResult, None]:
        """Runs the flow step by step and hands over the result of each, iterations of loops included.

        The next step runs when its result is asked for, so `step.replace_output({…})` can change what it
        gets. Leaving the loop leaves the run paused on the server, which cancels it after a day;
        `step.execution_id` names it. `run_remaining=True` runs everything without a stop between the steps.

        `input_overrides` stands over fields of what comes into the first step; an object under the id of a
        step, over fields of that step's input whenever it runs. The draft is stepped through as long as no
        version is published, and stays as it was at its begin. `tools` need a `tool_handler`;
        the other parameters are those of `execute`. A step may take as long as it needs; a connection that
        falls silent is lost.

        Raises as `execute` does, and FlowExecutionError with `step_id` where a step fails for good. Invalid
        arguments raise at once, everything else is raised by the loop.
        """
        request = run_requests.step_through(
            self._address,
            message=message,
            parameters=parameters,
            attachments=attachments,
            block_overrides=block_overrides,
            input_overrides=input_overrides,
            trace=trace,
            version=version,
            run_remaining=run_remaining,
            tools=tools,
            tool_choice=tool_choice,
            session_id=session_of_call(session_id, self._transport.endpoint.session_id),
            trace_context=trace_context,
        )
        answers = ToolAnswers(tool_handler, max_tool_rounds, tools)
        return steps_of(self._transport, StepSession(request), answers)

    def events(
        self,
        *,
        message: str | None = None,
        parameters: Parameters | None = None,
        attachments: Attachments | None = None,
        block_overrides: Overrides | None = None,
        input_overrides: Mapping[str, Any] | None = None,
        trace: bool = False,
        version: Version = "production",
        run_remaining: bool = False,
        tools: Tools | None = None,
        tool_choice: ToolChoice | None = None,
        tool_handler: ToolHandler | None = None,
        max_tool_rounds: int = 10,
        session_id: SessionId = None,
        trace_context: TraceHeaders | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Runs the flow step by step and hands over every event, as it happens.

        Like `steps`, with the pauses, retries and parts of outputs between the results. The next step runs
        when the event after a `StepPaused` is asked for. Closing the generator closes the connection.

        Raises as `steps` does, after the event that says why.
        """
        request = run_requests.step_through(
            self._address,
            message=message,
            parameters=parameters,
            attachments=attachments,
            block_overrides=block_overrides,
            input_overrides=input_overrides,
            trace=trace,
            version=version,
            run_remaining=run_remaining,
            tools=tools,
            tool_choice=tool_choice,
            session_id=session_of_call(session_id, self._transport.endpoint.session_id),
            trace_context=trace_context,
        )
        answers = ToolAnswers(tool_handler, max_tool_rounds, tools)
        return events_of(self._transport, StepSession(request), answers)

    def run(self, execution_id: str | uuid.UUID) -> AsyncRun:
        """The run of this flow with that id. Asks the server nothing yet."""
        return AsyncRun(
            self._transport, requests.run_path(execution_id, flow=self._address), str(execution_id)
        )

    async def runs(
        self, *, status: RunStatus | None = None, limit: int = 20
    ) -> AsyncGenerator[RunSummary, None]:
        """Every run of this flow, or every one with that status, newest first.

        They are fetched in pages of `limit` (1 to 100), each when the loop comes to it.

        Raises FlowNotFoundError, APITimeoutError, APIConnectionError.
        """
        if self._id is None:
            self._id = (await self._transport.call(requests.flow_id(self._address), timeout=None)).id
        call = requests.runs(flow_id=self._id, status=status, limit=limit, cursor=None)
        async for run in pages_of(self._transport, call, timeout=None):
            yield run
