"""The trace of a run as people read it: the public types of the run reference.

Attributes, names and optionality follow the reference (`docs/spec/run-reference.txt`) exactly; on the wire
the same fields are camelCase.
`input_context`, `output_context` and `error_context` decode when first read. This file knows nothing of how a
trace is made (`log/fold.py`) or sent. The JSON has no members for missing values.
"""

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypeVar

import msgspec

from runglass.support.lazy_json import Json, JsonList, LazyStruct, decode_when_read

RunStatus = Literal["pending", "running", "paused", "completed", "failed", "cancelled"]
StepStatus = Literal["running", "completed", "failed", "skipped"]

TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""Run statuses that nothing follows."""


if TYPE_CHECKING:
    Count: TypeAlias = int
else:
    # Logs from before usage was judged have what a provider told, as fractions; their sums are finite.
    Count = int | Annotated[float, msgspec.Meta(ge=-(2**53), le=2**53)]

Default = TypeVar("Default", bool, int, str)


def written(default: Default) -> Default:
    """A default that is written to JSON all the same, as only missing values are left out."""
    kind = type(default)
    # The type alone makes its empty value without a call of Python, several times for each step.
    return msgspec.field(default_factory=kind if kind() == default else lambda: default)


class TokenBreakdown(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Token usage of one LLM call; cached input tokens count in `prompt`."""

    prompt: Count
    completion: Count
    total: Count


class ModelTotals(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel", omit_defaults=True):
    """The sums of all calls of one model; `cost_usd` is the sum of the known costs, None if none is."""

    calls: int
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    unmetered_calls: int = written(0)
    unpriced_calls: int = written(0)


class RunTotals(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel", omit_defaults=True):
    """The totals of a run so far: every attempt and every model call is in them, failed ones included.

    `cost_usd` is exact, the sum of the known costs, None if none is known; of that, `failed_cost_usd` went
    into attempts that failed. Of the `failed` ones, so many as `cancelled` says were cut off as the run or a
    branch beside them ended. `unmetered_calls` are model calls for which the provider told no usage that can
    be right, `unpriced_calls` those for which no price is known. Where the project has a budget those are
    charged as they were reserved: `estimated_cost_usd` is that part of `cost_usd`. `finish_reasons` counts
    how model calls ended.
    """

    completed: int = written(0)
    failed: int = written(0)
    retried: int = written(0)
    skipped: int = written(0)
    cancelled: int = 0
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    failed_tokens: TokenBreakdown | None = None
    failed_cost_usd: str | None = None
    unmetered_calls: int = written(0)
    unpriced_calls: int = written(0)
    estimated_cost_usd: str | None = None
    by_model: dict[str, ModelTotals] = {}
    finish_reasons: dict[str, int] = {}


class RunError(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel", omit_defaults=True):
    """Why a run did not end well; `message` is shortened, and None where the capture mode keeps none."""

    code: str
    message: str | None = None
    step_id: str | None = None


class Recording(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel", omit_defaults=True):
    """What is told of a run that another program executed (`docs/spec/recording.md`).

    `name` is its entry's: the agent or workflow that began first, else the first span without a parent;
    `entry_span_id` is that span and `entry_ended` says that its end is known, though the run may still be
    `running`. `session` is the sender's own id; `user`, `service`, `release` and `environment` are its words.
    `continues` is the id of the run that has what came of the trace before this one. `notes` say what is odd.
    """

    trace_id: str
    name: str | None = None
    entry_span_id: str | None = None
    entry_ended: bool = False
    session: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    service: str | None = None
    release: str | None = None
    environment: str | None = None
    continues: str | None = None
    notes: tuple[str, ...] = ()


class RunSummary(LazyStruct, frozen=True, kw_only=True, eq=False):
    """High-level metadata about one execution. Times are ISO 8601 in UTC, `duration_ms` is milliseconds.

    `version` 0 is the draft. `started_by` is the name of the API key that started the run. `totals` add up
    all attempts and model calls. `overridden` names what the run's callers set anew, as `STEP.FIELD` or, of a
    step's input, `STEP.input.FIELD`; the values are in the event `overrides_applied`, where content is kept.
    `expected_steps` is `step_count` with the steps in loops counted once for each iteration, as far as loops
    have begun. `loops` has the iterations of each loop that is in no other and has begun, but not completed,
    of at most 100.
    `trace_parent` and `trace_state` are the W3C headers that the run was started with. `rerun_of` is the id
    of the run that it runs again. `recording` is there where another program executed the run, and where
    another run is the newest of its trace, `continued_by` is the id of that, which lists do not have.
    `unreadable` says that its summary cannot be read, or that it was ended without it: only the columns of
    its row are told.
    `input` has the run's `inputs` as they were given, and the `messages` before and `attachments` where there
    are any; it and `result` are in a trace, and there alone. Their previews are texts of at most 200
    characters. All four are None where the capture mode keeps nothing.
    """

    id: str
    flow_id: str
    status: str
    trigger_type: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    duration_ms: int | None = None
    step_count: int | None = None
    flow_slug: str | None = None
    version: int | None = None
    session_id: str | None = None
    started_by: str | None = None
    error: RunError | None = None
    totals: RunTotals | None = None
    expected_steps: int | None = None
    loops: dict[str, int] = msgspec.field(default_factory=dict)
    overridden: list[str] = msgspec.field(default_factory=list)
    trace_parent: str | None = None
    trace_state: str | None = None
    rerun_of: str | None = None
    recording: Recording | None = None
    continued_by: str | None = None
    unreadable: bool = False
    input_preview: str | None = None
    result_preview: str | None = None
    # Last, as a server puts them behind a stored summary.
    input: Json = None
    result: Json = None

    def __hash__(self) -> int:
        return hash((self.id, self.status, self.started_at, self.completed_at))


decode_when_read(RunSummary, ("input", "result"))


class ModelCall(LazyStruct, frozen=True, kw_only=True, eq=False):
    """One HTTP request to a language model and its response.

    `number` counts from 1 within the attempt. `request` is what was sent: `system`, `messages`, `tools`,
    `toolChoice`, `outputSchema` where there are any, and in `settings` all the rest of the body by the
    provider's names; `response` has `content` and `toolCalls`. Both are None
    where the capture mode keeps no content, and cut where they are too large (`truncated`). `request_id` is
    the provider's. `cost_unknown` is the reason why the cost is not known: `no_usage`, the provider told
    none, `bad_usage`, it told some that cannot be right, or `no_price`, no price is known. There is no
    `cost_usd` then, or, where the project has a budget, the amount that was reserved, the most that the call
    can have cost; `cost_estimated` is true then.
    `cached_tokens` and `cache_write_tokens` are parts of the prompt, `reasoning_tokens` of the completion,
    where told. Where the sender of a recorded run told the cost, that is `cost_usd`, and `list_cost_usd` is
    ours. `error_code` is set where the call failed or its answer could not be used. `streamed` is false where
    the answer came in one piece; `note` says why, unless a setting asked for it, of a call that failed that
    another one took its place, and of `bad_usage` what cannot be right.
    """

    number: int
    model: str
    provider: str | None = None
    model_used: str | None = None
    started_at: str | None = None
    duration_ms: int | None = None
    time_to_first_token_ms: int | None = None
    streamed: bool | None = None
    note: str | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    tokens: TokenBreakdown | None = None
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    cost_usd: str | None = None
    list_cost_usd: str | None = None
    cost_unknown: str | None = None
    cost_estimated: bool = False
    error_code: str | None = None
    request: Json = None
    response: Json = None
    truncated: bool = written(False)

    def __hash__(self) -> int:
        return hash((self.number, self.model, self.started_at))


decode_when_read(ModelCall, ("request", "response"))


class ModelReservation(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """The most that a request to a model can cost, in US dollars: taken from the budget before it is made.

    `number` is that of the model call that will follow.
    """

    number: int
    model: str
    usd: str


class StepTrace(LazyStruct, frozen=True, kw_only=True, eq=False):
    """One attempt of one step: timing, model, tokens, cost and, where captured, its snapshots.

    `loop_index` is the index of the innermost loop, `loop_path` all indices from the outermost in. `cost_usd`
    is an exact decimal string of US dollars, None where the price is unknown. Sizes are bytes of JSON before
    truncation. `model_calls` are those of an llm step, `finish_reason` is how the last of them ended:
    `length` means that its text was cut by a limit of tokens. `reservation` is there while a model is being
    asked on a budget.

    The fields from `name` to `notes` are those of a recorded step (`docs/spec/recording.md`): the whole name
    of its span, its kind, what of its attributes, events and links has no other place, and what is odd.
    """

    step_id: str
    attempt: int = written(1)
    loop_index: int | None = None
    loop_path: tuple[int, ...] | None = None
    status: str = written("running")
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
    truncated: bool = written(False)
    finish_reason: str | None = None
    name: str | None = None
    kind: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    start_time_unix_nano: str | None = None
    scope: str | None = None
    attributes: Json = None
    events: JsonList = None
    links: JsonList = None
    notes: tuple[str, ...] = ()
    # A tuple, of which there is one empty one: a list for each step makes long traces a quarter slower.
    model_calls: tuple[ModelCall, ...] = ()
    reservation: ModelReservation | None = None

    def __hash__(self) -> int:
        return hash((self.step_id, self.attempt, self.loop_path, self.status, self.started_at))


decode_when_read(
    StepTrace, ("input_context", "output_context", "error_context", "attributes", "events", "links")
)


class StepAttempts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every attempt of one step, ordered by iteration, then attempt number."""

    step_id: str
    attempts: list[StepTrace]


class Trace(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run and its steps: the latest attempt of each step and loop iteration, in order of first start."""

    flow_run: RunSummary
    steps: list[StepTrace]

    def __repr__(self) -> str:
        return f"<Trace of run {self.flow_run.id}: {self.flow_run.status}, {len(self.steps):,} steps>"
