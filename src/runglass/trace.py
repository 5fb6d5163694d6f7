"""The trace of a run as people read it: the public types of the run reference.

Attributes, names and optionality follow the reference exactly; on the wire the same fields are camelCase.
`input_context`, `output_context` and `error_context` decode when first read. This file knows nothing of how
a trace comes about (`fold.py`) or travels.
"""

from typing import Literal

import msgspec

from runglass.lazy import Json, decode_when_read, readable, same_fields

RunStatus = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
StepStatus = Literal["running", "completed", "failed", "skipped"]

TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""Run statuses that nothing follows."""


class TokenBreakdown(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Token usage of one LLM call; cached input tokens count in `prompt`."""

    prompt: int
    completion: int
    total: int


class RunSummary(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """High-level metadata about one execution. Times are ISO 8601 in UTC, `duration_ms` is milliseconds."""

    id: str
    flow_id: str
    status: str
    trigger_type: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    step_count: int | None = None


# The collector would walk every step of a long trace again and again. No cycle goes through a step, which is
# frozen and holds JSON, unless a reader puts it into its own snapshot.
class StepTrace(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel", eq=False):
    """One attempt of one step: timing, model, tokens, cost and, where captured, its snapshots.

    `loop_index` is the index of the innermost loop, `loop_path` all indices from the outermost in. `cost_usd`
    is an exact decimal string of US dollars, None where the price is unknown. Sizes are bytes of JSON before
    truncation.
    """

    step_id: str
    attempt: int = 1
    loop_index: int | None = None
    loop_path: tuple[int, ...] | None = None
    status: str = "running"
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    model_used: str | None = None
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    input_context: Json = None
    output_context: Json = None
    error_context: Json = None
    input_size_bytes: int | None = None
    output_size_bytes: int | None = None
    truncated: bool = False

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other)

    def __hash__(self) -> int:
        return hash((self.step_id, self.attempt, self.loop_path, self.status, self.started_at))

    def __repr__(self) -> str:
        return readable(self)


decode_when_read(StepTrace, ("input_context", "output_context", "error_context"))


class StepAttempts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every attempt of one step, ordered by iteration, then attempt number."""

    step_id: str
    attempts: list[StepTrace]


class Trace(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run and its steps: the latest attempt of each step and loop iteration, in order of first start."""

    flow_run: RunSummary
    steps: list[StepTrace]
