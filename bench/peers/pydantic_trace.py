"""Decoding a trace the pydantic way, as most SDKs do: `python -m bench.peers.pydantic_trace FILE`."""

import gc
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from bench.answering import Message, answer
from bench.memory import own_memory, own_peak


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Tokens(Camel):
    prompt: int
    completion: int
    total: int


class Step(Camel):
    step_id: str
    attempt: int = 1
    loop_index: int | None = None
    loop_path: list[int] | None = None
    status: str
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    model_used: str | None = None
    tokens: Tokens | None = None
    cost_usd: str | None = None
    input_context: dict[str, Any] | None = None
    output_context: dict[str, Any] | None = None
    error_context: dict[str, Any] | None = None
    input_size_bytes: int | None = None
    output_size_bytes: int | None = None
    truncated: bool = False


class Run(Camel):
    id: str
    flow_id: str
    status: str
    trigger_type: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    step_count: int | None = None


class Trace(Camel):
    flow_run: Run
    steps: list[Step]


def measure(_: Message) -> Message:
    data = Path(sys.argv[1]).read_bytes()
    gc.collect()
    before = own_memory()
    began_s = time.perf_counter()
    trace = Trace.model_validate_json(data)
    spent_s = time.perf_counter() - began_s
    grown = max(own_memory(), own_peak()) - before
    return {"ms": spent_s * 1000, "mb": grown / 1e6, "steps": len(trace.steps)}


if __name__ == "__main__":
    answer(measure)
