"""The frames that the caller of `step` gets: events with content that the log may lack, and two more.

Some clients read a step's output from `step_output` alone, and know no bad end but `step_error`. Where the
log has no such event, the stream has a frame without an `id`, since it is no event of the run and has no seq.
All frames follow from the log and from the content that is kept for the call, so a repeat of the call gets
the same frames at the same places.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cached_property, partial
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from runglass.engine.models.model_types import both_spellings
from runglass.engine.run.active_runs import StartedRun
from runglass.engine.run.task import RunReleased
from runglass.engine.steps.run_context import LiveOutputs
from runglass.flows.flow import find_step, step_index
from runglass.limits.offload import offload
from runglass.log.events import (
    FlowCancelled,
    FlowCompleted,
    FlowFailed,
    StepCompleted,
    StepError,
    StepEvent,
    StepOutput,
    StepPausedForToolCalls,
    StepResumed,
    StepRetrying,
    StepSkipped,
    StepStarted,
    decode_event,
    encode_event,
    event_type_of,
)
from runglass.log.fold import Address
from runglass.log.trace import StepTrace
from runglass.runtime.runtime import decode_stored_flow
from runglass.server.calls.run_failure import failure_at
from runglass.store.base import Store
from runglass.store.records import RunRecord
from runglass.support.lazy_json import encoded
from runglass.tails.cursor import Page
from runglass.wire.sse import frame, unnumbered_frame

_READ = frozenset(
    str(kind.__struct_config__.tag)
    for kind in (
        StepStarted,
        StepResumed,
        StepOutput,
        StepCompleted,
        StepRetrying,
        StepError,
        StepSkipped,
        StepPausedForToolCalls,
        FlowCompleted,
        FlowFailed,
        FlowCancelled,
    )
)


class Waiting(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a run that is paused for tool results, as its caller gets it."""

    tool_call_messages: list[dict[str, Any]]
    tool_calls: list[dict[str, Any]]
    accumulated_outputs: dict[str, Any]


class StepPage(Page):
    """Events, and frames with the number 0 that are no events of the run."""

    @cached_property
    def frames(self) -> bytes:
        """The page as bytes of a stream."""
        return b"".join(
            frame(seq, event_type_of(data), data) if seq else unnumbered_frame(event_type_of(data), data)
            for seq, data in self
        )


class StepFrames:
    """The frames of one call of `step`, with the content that its caller is owed.

    That of a segment that this call has `started` is in `outputs`; for repeats of a call, and on each other
    server, the store keeps the content with the events.
    """

    def __init__(
        self,
        store: Store,
        run: RunRecord,
        started: StartedRun | None = None,
        outputs: LiveOutputs | None = None,
    ) -> None:
        self._store = store
        self._run = run
        self._started = started
        self._outputs = outputs
        self._last_output: tuple[int, bytes | None] = (0, None)
        self._open: dict[Address, StepStarted | StepResumed] = {}
        self._latest: StepStarted | StepResumed | None = None
        self._errors: list[StepError] = []

    async def of(self, pages: AsyncGenerator[Page, None]) -> AsyncGenerator[Page, None]:
        """The pages of the log as pages of frames."""
        async with aclosing(pages):
            async for page in pages:
                rows: list[tuple[int, bytes]] = []
                for seq, data in page:
                    if event_type_of(data) in _READ:
                        rows += await self._rows(seq, data)
                    else:
                        rows.append((seq, data))
                yield StepPage(rows)

    async def _rows(self, seq: int, data: bytes) -> list[tuple[int, bytes]]:
        match event := decode_event(data):
            case StepStarted() | StepResumed():
                self._open[Address(event.step_id, event.loop_path)] = self._latest = event
            case StepSkipped():
                self._end(event)
            case StepError():
                self._end(event)
                self._errors.append(event)
                if (error := await self._content_of(seq)) is not None:
                    return [(seq, encode_event(replace(event, error=encoded(error))))]
            case StepRetrying() if (error := await self._content_of(seq)) is not None:
                return [(seq, encode_event(replace(event, error=encoded(error))))]
            case StepOutput():
                # The `step_completed` of the attempt follows at once, in the same append.
                output = await self._content_of(seq + 1)
                self._last_output = (seq + 1, output)
                if output is not None:
                    return [(seq, encode_event(_with_output(event, output)))]
            case StepCompleted():
                self._end(event)
                return await self._completed(event, seq, data)
            case FlowCompleted():
                result, _ = await self._store.outcome(self._run.no)
                if result is not None:
                    return [(seq, encode_event(replace(event, result=encoded(result))))]
            case StepPausedForToolCalls() if (waiting := await self._pause_at(seq)) is not None:
                return [(seq, encode_event(replace(event, **asdict(waiting))))]
            case FlowFailed():
                _, whole = await self._store.outcome(self._run.no)
                end = event if whole is None else replace(event, error=encoded(whole))
                last = (seq, encode_event(end))
                # A `step_error` may have reported this end, and not one that the run survived.
                if any((each.step_id, each.error) == (event.step_id, event.error) for each in self._errors):
                    return [last]
                return [*await self._bad_end(end), last]
            case FlowCancelled():
                return [*await self._bad_end(event), (seq, data)]
        return [(seq, data)]

    async def _content_of(self, seq: int) -> bytes | None:
        """The output or error of the event with this seq; None where the event has it as it is."""
        if self._outputs is not None:
            content = self._outputs.pop(seq)
            if content is not None or seq not in self._outputs.stored:
                return content
            self._outputs.stored.discard(seq)
        return await self._store.owed(self._run.no, seq)

    async def _pause_at(self, seq: int) -> Waiting | None:
        """The content of the `step_paused_for_tool_calls` with this seq."""
        if self._started is None:
            if (owed := await self._store.owed(self._run.no, seq)) is None:
                return None
            return await offload(partial(msgspec.json.decode, owed, type=Waiting), size_bytes=len(owed))
        try:
            outcome = await self._started.outcome()
        except RunReleased:
            # Another process took over the run: then the content is that of the log.
            return None
        if outcome.pause is None or outcome.pause.tool_loop is None:
            return None
        tool_loop = outcome.pause.tool_loop
        return Waiting(
            tool_call_messages=both_spellings(tool_loop.messages),
            tool_calls=tool_loop.calls,
            accumulated_outputs=dict(outcome.outputs),
        )

    def _end(self, event: StepEvent) -> None:
        self._open.pop(Address(event.step_id, event.loop_path), None)

    async def _completed(self, event: StepCompleted, seq: int, data: bytes) -> list[tuple[int, bytes]]:
        (last_seq, output), self._last_output = self._last_output, (0, None)
        has_output = last_seq == seq
        if not has_output:
            output = await self._content_of(seq)
        if output is None:
            return [(seq, data)]
        completed = (seq, encode_event(replace(event, output=encoded(output))))
        if has_output:
            return [completed]
        added = StepOutput(
            execution_id=event.execution_id,
            at=event.at,
            step_id=event.step_id,
            loop_index=event.loop_index,
            loop_path=event.loop_path,
            attempt=event.attempt,
        )
        return [(0, encode_event(_with_output(added, output))), completed]

    async def _bad_end(self, end: FlowFailed | FlowCancelled) -> list[tuple[int, bytes]]:
        last_attempt = await self._last_attempt(end.step_id if isinstance(end, FlowFailed) else None)
        added = StepError(
            execution_id=end.execution_id,
            at=end.at,
            step_id=last_attempt.step_id,
            loop_index=last_attempt.loop_index,
            loop_path=last_attempt.loop_path,
            name=last_attempt.name if isinstance(last_attempt, StepStarted) else None,
            step_index=last_attempt.step_index,
            attempt=last_attempt.attempt,
            error=encoded(msgspec.json.encode(failure_at(end).step_error())),
        )
        return [(0, encode_event(added))]

    async def _last_attempt(self, step_id: str | None) -> StepStarted | StepResumed:
        """The attempt at which the run ended: of step `step_id` where that is given, else the latest."""
        running = [attempt for attempt in self._open.values() if step_id in (None, attempt.step_id)]
        if running:
            return running[-1]
        if step_id is None and self._latest is not None:
            return self._latest
        return await self._unstarted_attempt(step_id)

    async def _unstarted_attempt(self, step_id: str | None) -> StepStarted:
        """An attempt that was never started: of the given step, or of the last step in the trace."""
        run, store = self._run, self._store
        source = await store.flow_source(run.flow_id, run.version)
        # A draft may have changed since the run; then the position of the step is not known.
        flow = None if source is None else decode_stored_flow(source)
        last = await store.last_position(run.no)
        if step_id is None:
            rows = await store.trace_page(run.no, after=last - 1, limit_bytes=1) if last else []
            first = flow.steps[0].id if flow else ""
            step_id = msgspec.json.decode(rows[0][1], type=StepTrace).step_id if rows else first
        step = None if flow is None else find_step(flow, step_id)
        return StepStarted(
            execution_id=run.id,
            step_id=step_id,
            name=None if step is None else step.name,
            step_index=0 if flow is None or step is None else step_index(flow, step_id),
            attempt=1,
        )


def _with_output(event: StepOutput, output: bytes) -> StepOutput:
    return replace(event, output_data=encoded(output), output_context=encoded(output))
