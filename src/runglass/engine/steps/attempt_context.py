"""The log of one run, as its attempts write to it."""

import msgspec

from runglass.engine.capture.capture import Capture
from runglass.engine.journal.recorder import Recorder
from runglass.engine.payload import Payload
from runglass.engine.steps.live_outputs import LiveOutputs
from runglass.flows.flow import Flow
from runglass.support.clock import Clock


class AttemptContext(msgspec.Struct, frozen=True, kw_only=True):
    """The log of one run, and how content gets into it; secrets in `inputs` are struck from errors.

    `outputs`, if given, gets the content of events for the caller of this segment, by seq, whatever the log
    keeps; `answers_call` says that it is stored, too, for a call that may be sent again.
    """

    execution_id: str
    flow: Flow
    inputs: Payload
    recorder: Recorder
    capture: Capture
    clock: Clock
    answers_call: bool = False
    outputs: LiveOutputs | None = None

    def keep_replay(self, content: bytes) -> None:
        """Keeps the content of the last event for the caller of this segment."""
        is_held = self.outputs is None or self.outputs.keep(self.recorder.head, content)
        if self.answers_call or not is_held:
            self.recorder.keep_replay(content)
