"""Made-up traces and event streams of a given size, as bytes: what a decoder is given to decode."""

import msgspec

from runglass.log.events import (
    FlowCompleted,
    KnownEvent,
    RunStarted,
    StepCompleted,
    StepOutput,
    StepStarted,
    encode_event,
)
from runglass.log.trace import RunSummary, StepTrace, TokenBreakdown, Trace
from runglass.wire.sse import frame

RUN_ID = "019a0000-0000-7000-8000-000000000001"
FLOW_ID = "019a0000-0000-7000-8000-0000000000f1"
AT = "2026-01-01T00:00:00.000Z"
TOKENS = TokenBreakdown(prompt=120, completion=48, total=168)
MODEL = "openai:gpt-4o-mini"
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind. "
CHUNK_BYTES = 64 * 1024


def trace_bytes(steps: int) -> bytes:
    """A trace of so many llm steps with their snapshots, about 820 bytes each."""
    return msgspec.json.encode(
        Trace(
            flow_run=RunSummary(
                id=RUN_ID,
                flow_id=FLOW_ID,
                status="completed",
                trigger_type="api",
                started_at=AT,
                completed_at=AT,
                duration_ms=steps * 12,
                step_count=20,
            ),
            steps=[
                StepTrace(
                    step_id=f"step-{number % 20}",
                    loop_index=number // 20,
                    loop_path=(number // 20,),
                    status="completed",
                    started_at=AT,
                    completed_at=AT,
                    duration_ms=12,
                    model_used=MODEL,
                    tokens=TOKENS,
                    cost_usd="0.000045",
                    input_context={"message": SENTENCE * 2, "index": number, "topic": "spelling"},
                    output_context={"text": SENTENCE * 2, "words": ["quick", "brown", "lazy"], "score": 0.75},
                    input_size_bytes=210,
                    output_size_bytes=230,
                )
                for number in range(steps)
            ],
        )
    )


def stream_chunks(events: int) -> list[bytes]:
    """A finished run's stream of so many events, metadata only, cut without regard to its frames."""
    stream = b"".join(
        frame(seq, event.event_type, encode_event(event)) for seq, event in enumerate(_events(events), 1)
    )
    return [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]


def large_frame_chunks(size: int, *, chunk_bytes: int = 16 * 1024) -> list[bytes]:
    """A stream of one event whose frame has about `size` bytes."""
    text = (SENTENCE * (size // len(SENTENCE) + 1))[:size]
    event = StepOutput(execution_id=RUN_ID, seq=1, at=AT, step_id="say", output_data={"text": text})
    stream = frame(1, "step_output", encode_event(event))
    return [stream[at : at + chunk_bytes] for at in range(0, len(stream), chunk_bytes)]


def _events(count: int) -> list[KnownEvent]:
    found: list[KnownEvent] = [
        RunStarted(
            execution_id=RUN_ID,
            seq=1,
            at=AT,
            run_id=RUN_ID,
            flow_id=FLOW_ID,
            step_count=20,
            trigger_type="api",
            version=1,
        )
    ]
    for seq in range(2, count):
        number = seq // 2 - 1
        if seq % 2 == 0:
            found.append(
                StepStarted(
                    execution_id=RUN_ID,
                    seq=seq,
                    at=AT,
                    step_id=f"step-{number % 20}",
                    loop_index=number // 20,
                    loop_path=(number // 20,),
                    step_index=0,
                    attempt=1,
                    input_size_bytes=210,
                )
            )
        else:
            found.append(
                StepCompleted(
                    execution_id=RUN_ID,
                    seq=seq,
                    at=AT,
                    step_id=f"step-{number % 20}",
                    loop_index=number // 20,
                    loop_path=(number // 20,),
                    step_index=0,
                    attempt=1,
                    duration_ms=12,
                    tokens=TOKENS,
                    cost_usd="0.000045",
                    model_used=MODEL,
                    output_size_bytes=230,
                )
            )
    found.append(FlowCompleted(execution_id=RUN_ID, seq=count, at=AT, run_id=RUN_ID))
    return found
