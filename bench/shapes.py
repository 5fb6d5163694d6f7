"""The least that a msgspec decoder can make of a trace and of events, with every payload left as bytes.

This is the limit of the decoding figures: no lazy payloads, no unknown types, no behaviour.
"""

import msgspec


class BareTokens(msgspec.Struct, rename="camel"):
    prompt: int
    completion: int
    total: int


class BareStep(msgspec.Struct, rename="camel"):
    step_id: str
    attempt: int
    status: str
    loop_index: int | None = None
    loop_path: list[int] | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    model_used: str | None = None
    tokens: BareTokens | None = None
    cost_usd: str | None = None
    input_context: msgspec.Raw = msgspec.Raw()
    output_context: msgspec.Raw = msgspec.Raw()
    error_context: msgspec.Raw = msgspec.Raw()
    input_size_bytes: int | None = None
    output_size_bytes: int | None = None
    truncated: bool = False


class BareRun(msgspec.Struct, rename="camel"):
    id: str
    flow_id: str
    status: str
    trigger_type: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    step_count: int | None = None


class BareTrace(msgspec.Struct, rename="camel"):
    flow_run: BareRun
    steps: list[BareStep]


class BareEvent(msgspec.Struct, rename="camel", tag_field="eventType"):
    execution_id: str
    seq: int
    at: str


class BareRunStarted(BareEvent, tag="run_started", rename="camel"):
    run_id: str
    flow_id: str
    step_count: int
    trigger_type: str


class BareStepStarted(BareEvent, tag="step_started", rename="camel"):
    step_id: str
    step_index: int
    attempt: int
    loop_index: int | None = None


class BareStepOutput(BareEvent, tag="step_output", rename="camel"):
    step_id: str
    output_data: msgspec.Raw


class BareStepCompleted(BareEvent, tag="step_completed", rename="camel"):
    step_id: str
    step_index: int
    attempt: int
    duration_ms: int
    loop_index: int | None = None
    output: msgspec.Raw = msgspec.Raw()
    tokens: BareTokens | None = None
    cost_usd: str | None = None
    model_used: str | None = None


class BareFlowCompleted(BareEvent, tag="flow_completed", rename="camel"):
    run_id: str
    result: msgspec.Raw = msgspec.Raw()


class BareLoopStarted(BareEvent, tag="loop_started", rename="camel"):
    step_id: str
    iterations: int
    step_ids: list[str]


class BareLoopCompleted(BareEvent, tag="loop_completed", rename="camel"):
    step_id: str
    iterations: int


AnyBareEvent = (
    BareRunStarted
    | BareStepStarted
    | BareStepOutput
    | BareStepCompleted
    | BareLoopStarted
    | BareLoopCompleted
    | BareFlowCompleted
)


def decode_bare(chunks: list[bytes]) -> int:
    """How many events a finished stream in these chunks holds, each decoded to an object."""
    decode = msgspec.json.Decoder(AnyBareEvent).decode
    found = 0
    parts: list[bytes] = []
    for chunk in chunks:
        end = chunk.rfind(b"\n\n")
        if end < 0:
            parts.append(chunk)
            continue
        parts.append(chunk[:end])
        for frame in b"".join(parts).split(b"\n\n"):
            at = frame.find(b"\ndata: ")
            if at >= 0:
                decode(frame[at + 7 :])
                found += 1
        parts = [chunk[end + 2 :]]
    return found
