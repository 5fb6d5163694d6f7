"""The outputs that a run keeps because it fails, though its capture mode keeps none: see `capture_failed`.

They are read from the checkpoints, which the append that ends the run deletes. Knows nothing of the failure.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.engine.journal.checkpoints import path_text
from runglass.engine.journal.recorder import Recorder
from runglass.engine.payload import Payload
from runglass.engine.scheduling.memory_budget import MemoryBudget
from runglass.errors import RunUnreadable
from runglass.log.events import MOST_KEPT, ContentKept, KeptOutput
from runglass.log.fold import StepChange
from runglass.log.trace import RunTotals, StepTrace
from runglass.store.base import Store, decoding
from runglass.support.lazy_json import encoded

MOST_BYTES = 4 << 20
"""So much the outputs take in all."""
_PAGE_BYTES = 256 * 1024

log = logging.getLogger(__name__)


class KeptOutputs(NamedTuple):
    """Outputs of attempts, and the states of these `before`, whose JSON has `replaced_bytes`."""

    outputs: list[KeptOutput]
    before: Sequence[StepChange]
    replaced_bytes: int

    def record(self, recorder: Recorder) -> None:
        """Adds the event, to travel with the one that follows."""
        for change in self.before:
            recorder.fold.reopen(change)
        # Their rows are written anew, and count once.
        recorder.log_bytes -= self.replaced_bytes
        completed = (recorder.fold.summary.totals or RunTotals()).completed
        if completed:
            recorder.record_with_next(
                ContentKept(
                    execution_id=recorder.run.id, outputs=self.outputs, left_out=completed - len(self.outputs)
                )
            )


async def read_outputs(
    store: Store, recorder: Recorder, capture: Capture, memory: MemoryBudget
) -> KeptOutputs | None:
    """The outputs of steps that ended well, as `capture` keeps them: the newest first, while there is room.

    None where one cannot be read: what the run failed of is to be told. Returns when all that was recorded is
    stored. Raises StoreError.
    """
    await recorder.commit()
    try:
        return await _outputs(store, recorder, capture, memory)
    except RunUnreadable as error:
        log.error("run %s keeps no outputs of its steps: %s", recorder.run.id, error)  # noqa: TRY400
        return None


async def _outputs(store: Store, recorder: Recorder, capture: Capture, memory: MemoryBudget) -> KeptOutputs:
    run, ended = recorder.run, list[tuple[int, StepChange]]()
    after = max(0, recorder.fold.last_position - MOST_KEPT)
    while rows := await store.trace_page(run.no, after=after, limit_bytes=_PAGE_BYTES):
        after = rows[-1][0]
        for position, data in rows:
            with decoding(run.id):
                step = msgspec.json.decode(data, type=StepTrace)
            if step.status == "completed":
                ended.append((len(data), StepChange(position, step)))
    outputs: list[KeptOutput] = []
    before: list[StepChange] = []
    replaced_bytes, room = 0, MOST_BYTES
    for row_bytes, change in reversed(ended):
        step = change.step
        size = step.output_size_bytes or 0
        if min(size, capture.limit_bytes) > room:
            continue
        async with memory.working(size):
            checkpoint = await store.checkpoint(run.no, step.step_id, path_text(step.loop_path))
            # A caller who went back made void what came after.
            if checkpoint is None:
                continue
            with decoding(run.id):
                output = Payload.encoded(checkpoint)
                await capture.prepare(output)
                snapshot = capture.snapshot(output)
        kept = bytes(snapshot.data or b"")
        if len(kept) > room:
            continue
        room -= len(kept)
        replaced_bytes += row_bytes
        before.append(change)
        outputs.append(
            KeptOutput(
                step_id=step.step_id,
                loop_index=step.loop_index,
                loop_path=step.loop_path,
                attempt=step.attempt,
                output=encoded(kept),
                truncated=snapshot.truncated,
            )
        )
    return KeptOutputs(outputs[::-1], before, replaced_bytes)
