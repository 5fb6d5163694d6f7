"""What a server sends of a short run: its stream, six events long, its result, and its place in a list."""

from collections.abc import Iterable

import msgspec

from runglass import StreamEvent
from runglass.wire.sse import RETRY, frame
from tests.unit.client.scripted import Scene, answers
from tests.unit.client.sides import RUN


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


RESULT = {"status": "completed", "result": {"text": "x"}, "flowId": "f", "blockCount": 1, "executionId": RUN}
"""What a call is answered with whose run has completed."""


def page(*ids: str, cursor: str | None = None) -> Scene:
    """A page of completed runs."""
    runs = [{"id": each, "flowId": "f", "status": "completed"} for each in ids]
    return answers({"runs": runs, "nextCursor": cursor})


def stream(*, after: int = 0) -> bytes:
    """The whole body of a stream that resumes after that event."""
    return RETRY + b"".join(FRAMES[after:])


def seqs(events: Iterable[StreamEvent]) -> list[int]:
    return [event.seq for event in events]
