"""Decoding an event stream the way of a well-known SDK: its stream decoder, then pydantic models.

`python -m bench.peers.openai_stream FILE CHUNK_BYTES`
"""

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from openai._streaming import ServerSentEvent, SSEDecoder
from pydantic import Field, TypeAdapter

from bench.answering import Message, answer
from bench.peers.pydantic_trace import Camel, Tokens


class Event(Camel):
    execution_id: str
    seq: int
    at: str


class RunStarted(Event):
    event_type: Literal["run_started"]
    run_id: str
    flow_id: str
    step_count: int
    trigger_type: str


class StepStarted(Event):
    event_type: Literal["step_started"]
    step_id: str
    step_index: int
    attempt: int
    loop_index: int | None = None


class StepOutput(Event):
    event_type: Literal["step_output"]
    step_id: str
    output_data: dict[str, Any]


class StepCompleted(Event):
    event_type: Literal["step_completed"]
    step_id: str
    step_index: int
    attempt: int
    duration_ms: int
    loop_index: int | None = None
    output: dict[str, Any] | None = None
    tokens: Tokens | None = None
    cost_usd: str | None = None
    model_used: str | None = None


class FlowCompleted(Event):
    event_type: Literal["flow_completed"]
    run_id: str
    result: dict[str, Any] | None = None


ANY_EVENT: TypeAdapter[Event] = TypeAdapter(
    Annotated[
        RunStarted | StepStarted | StepOutput | StepCompleted | FlowCompleted,
        Field(discriminator="event_type"),
    ]
)


def _event(sse: ServerSentEvent) -> Event:
    return ANY_EVENT.validate_json(sse.data)


def measure(_: Message) -> Message:
    data, chunk_bytes = Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
    chunks = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    began_s = time.perf_counter()
    events = sum(1 for _ in map(_event, SSEDecoder().iter_bytes(iter(chunks))))
    return {"ms": (time.perf_counter() - began_s) * 1000, "events": events}


if __name__ == "__main__":
    answer(measure)
