"""How a segment ends, and the pause in which a run waits for tool results: in the log and for the caller."""

from typing import Any, NamedTuple

import msgspec

from runglass.engine.journal.checkpoints import pause_checkpoint
from runglass.engine.journal.run_spec import Pause, ToolLoopState
from runglass.engine.models.model_types import both_spellings
from runglass.engine.payload import Payload
from runglass.engine.scheduling.memory_budget import encode
from runglass.engine.scheduling.offloading import offload
from runglass.engine.steps.run_context import RunContext
from runglass.log.events import StepPausedForToolCalls


class SegmentResult(NamedTuple):
    """The end of a segment: the run's result, or the pause in which it waits, and the outputs so far."""

    result: Payload | None
    pause: Pause | None
    outputs: dict[str, Any]


async def record_tool_pause(
    context: RunContext, pause: Pause, tool_loop: ToolLoopState, outputs: dict[str, Any]
) -> None:
    """Records that the run waits for the results of the calls in `tool_loop`.

    Where the segment answers a call that may be sent again, the pause is kept whole for that.
    """
    shown = Payload({"messages": tool_loop.messages, "calls": tool_loop.calls, "outputs": outputs})
    await encode(shown)
    await context.capture.prepare(shown)
    snapshot = context.capture.snapshot(shown).data
    content = msgspec.json.decode(snapshot) if snapshot is not None else {}
    attempt = context.recorder.fold.open_step(tool_loop.step_id, None)
    event = StepPausedForToolCalls(
        execution_id=context.run_id,
        run_id=context.run_id,
        step_id=tool_loop.step_id,
        step_index=pause.cursor,
        iterations_used=tool_loop.iterations_used,
        tool_call_messages=both_spellings(_objects(content.get("messages"))),
        tool_calls=_objects(content.get("calls")),
        accumulated_outputs=content.get("outputs") or {},
        tokens=None if attempt is None else attempt.tokens,
        cost_usd=None if attempt is None else attempt.cost_usd,
        model_used=None if attempt is None else attempt.model_used,
    )
    owed = {
        "toolCallMessages": both_spellings(tool_loop.messages),
        "toolCalls": tool_loop.calls,
        "accumulatedOutputs": outputs,
    }
    checkpoint, answer = await offload(
        lambda: (pause_checkpoint(pause), msgspec.json.encode(owed)), size_bytes=shown.size_bytes
    )
    context.recorder.record(event, checkpoint=checkpoint)
    if context.answers_call:
        context.recorder.keep_replay(answer)


def _objects(value: Any) -> list[dict[str, Any]]:
    # A cut list ends with a mark, which is no object.
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
