"""How a segment ends, and the pause in which a run waits for tool results: in the log and for the caller."""

from typing import Any, NamedTuple

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.engine.journal.checkpoints import pause_checkpoint
from runglass.engine.journal.recorder import Recorder
from runglass.engine.journal.run_spec import Pause, ToolLoopState
from runglass.engine.models.model_types import both_spellings
from runglass.engine.payload import Payload
from runglass.engine.scheduling.memory_budget import encode
from runglass.engine.scheduling.offloading import offload
from runglass.log.events import StepPausedForToolCalls


class SegmentResult(NamedTuple):
    """The end of a segment: the run's result, or the pause in which it waits, and the outputs so far."""

    result: Payload | None
    pause: Pause | None
    outputs: dict[str, Any]


async def record_tool_pause(
    execution_id: str,
    pause: Pause,
    tool_loop: ToolLoopState,
    outputs: dict[str, Any],
    *,
    recorder: Recorder,
    capture: Capture,
    answers_call: bool,
) -> None:
    """Records that the run waits for the results of the calls in `tool_loop`.

    With `answers_call` the pause is kept whole for a call that may be sent again.
    """
    shown = Payload({"messages": tool_loop.messages, "calls": tool_loop.calls, "outputs": outputs})
    await encode(shown)
    await capture.prepare(shown)
    snapshot = capture.snapshot(shown).data
    content = msgspec.json.decode(snapshot) if snapshot is not None else {}
    attempt = recorder.fold.open_step(tool_loop.step_id, None)
    event = StepPausedForToolCalls(
        execution_id=execution_id,
        run_id=execution_id,
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
    recorder.record(event, checkpoint=checkpoint)
    if answers_call:
        recorder.keep_replay(answer)


def _objects(value: Any) -> list[dict[str, Any]]:
    # A cut list ends with a mark, which is no object.
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
