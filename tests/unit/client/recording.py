"""The stream of a short run, six events long, as a server sends it."""

from collections.abc import Iterable

import msgspec

from runglass import StreamEvent
from runglass.wire.sse import RETRY, frame


def event(seq: int, kind: str, **fields: object) -> bytes:
    """One frame."""
    return frame(
        seq, kind, msgspec.json.encode({"eventType": kind, "executionId": "r1", "seq": seq, **fields})
    )


FRAMES = [
    event(1, "run_started", runId="r1", flowId="f", stepCount=1, triggerType="api", version=1),
    event(2, "step_started", stepId="s", stepIndex=0, attempt=1),
    event(3, "step_output", stepId="s", outputData={"text": "é"}),
    event(4, "brand_new", stepId="s"),
    event(5, "step_completed", stepId="s", stepIndex=0, attempt=1, durationMs=1),
    event(6, "flow_completed", runId="r1", result={"text": "é"}),
]
SEQS = [1, 2, 3, 4, 5, 6]


def stream(*, after: int = 0) -> bytes:
    """The whole body of a stream that resumes after that event."""
    return RETRY + b"".join(FRAMES[after:])


def seqs(events: Iterable[StreamEvent]) -> list[int]:
    return [event.seq for event in events]
