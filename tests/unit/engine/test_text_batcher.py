"""The text of an attempt reaches the log, also where leaving the stream is cut off."""

import asyncio

import pytest

from runglass.engine.capture.capture import Capture
from runglass.engine.journal.recorder import Recorder
from runglass.engine.payload import Payload
from runglass.engine.scope import StepPosition
from runglass.engine.steps.attempt_context import AttemptContext
from runglass.engine.steps.attempt_recorder import AttemptRecorder
from runglass.engine.steps.text_batcher import TextBatcher
from runglass.flows.flow import Flow, PassthroughStep
from runglass.log.events import KnownEvent, StepProgress
from tests.fakes import VirtualClock


class Kept(Recorder):
    """Keeps events in a list."""

    def __init__(self) -> None:
        self.events: list[KnownEvent] = []

    def record(self, event: KnownEvent, **more: object) -> None:
        self.events.append(event)


async def test_the_last_text_is_recorded_though_leaving_is_cut_off() -> None:
    kept = Kept()

    async def attempt() -> None:
        step = PassthroughStep(id="s")
        writing = AttemptContext(
            execution_id="e",
            flow=Flow(slug="f", steps=[step]),
            inputs=Payload({}),
            recorder=kept,
            capture=Capture("full"),
            clock=VirtualClock(),
        )
        async with TextBatcher(
            AttemptRecorder(writing, step, Payload({}), StepPosition(0), 1), writing
        ) as stream:
            stream.write("first")
            stream.write("last")
            asyncio.get_running_loop().call_soon(task.cancel)

    task = asyncio.create_task(attempt())
    with pytest.raises(asyncio.CancelledError):
        await task
    texts = [e.text for e in kept.events if isinstance(e, StepProgress)]
    assert "".join(texts) == "firstlast"
