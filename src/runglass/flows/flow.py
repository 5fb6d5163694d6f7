"""A flow: the tree of steps that a run walks.

The engine executes these structs and the store keeps them; `flows/parser.py` is the only way from a file to
them. Their annotations are the source of the published JSON Schema (`docs/spec/flow.md` is the contract), and
of what the fields of each kind of step are written in (`flows/syntax.py`). Knows nothing of how steps run.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec

MAX_STEPS = 10_000
_DAY_MS = 86_400_000

Syntax: TypeAlias = Literal["template", "templates", "code", "expression", "variable", "model", "schema"]
"""The syntax of a field; `templates` is any JSON value, whose strings are templates."""


def _about(description: str, *, syntax: Syntax | None = None, **rules: Any) -> msgspec.Meta:
    """Description and limits of a field, for the schema only: a stored flow has been checked before."""
    extra = None if syntax is None else {"syntax": syntax}
    return msgspec.Meta(description=description, extra_json_schema=rules, extra=extra)


class _Strict(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class Retry(_Strict, frozen=True, kw_only=True):
    """How often a step is tried and how long it waits in between."""

    max_attempts: Annotated[int, _about("Attempts in total, the first included.", minimum=1, maximum=100)] = 1
    initial_delay_ms: Annotated[int, _about("Wait after the first failure.", minimum=0, maximum=_DAY_MS)] = (
        200
    )
    multiplier: Annotated[float, _about("How much longer each wait is.", minimum=1, maximum=100)] = 2.0
    max_delay_ms: Annotated[int, _about("No wait is longer than this.", minimum=0, maximum=_DAY_MS)] = 10_000

    def delay_ms(self, failed_attempt: int) -> int:
        """Milliseconds to wait after attempt number `failed_attempt` (1, 2, …) has failed."""
        return int(min(self.initial_delay_ms * self.multiplier ** (failed_attempt - 1), self.max_delay_ms))


StepId = Annotated[str, _about("Unique in the whole flow.", pattern="^[A-Za-z0-9_-]{1,64}$")]
# PostgreSQL stores no NUL in a text.
Name = Annotated[str | None, _about("For people.", minLength=1, maxLength=256, pattern=r"^[^\u0000]*$")]
OnError = Annotated[
    Literal["fail", "continue"],
    _about("`continue`: the step is failed, its output null, and the flow continues."),
]
Input = Annotated[
    dict[str, Any] | None,
    _about(
        "What the step gets instead of the output before it. Strings inside are templates.",
        syntax="templates",
    ),
]
TimeoutMs = Annotated[
    int | None, _about("Limit of one attempt; of an llm step 600,000 by default.", minimum=1, maximum=_DAY_MS)
]
LLM_TIMEOUT_MS = 600_000
"""Of an llm step that sets none: what others send must end."""
Steps = Annotated["list[Step]", _about("Run one after the other.", minItems=1)]


class BaseStep(_Strict, frozen=True, kw_only=True, tag_field="type"):
    """The fields of every step."""

    id: StepId
    name: Name = None
    on_error: OnError = "fail"
    input: Input = None


class _Leaf(BaseStep, frozen=True, kw_only=True):
    retry: Annotated[
        Retry | None, _about("How a failed attempt is retried; without it, only for busy providers.")
    ] = None
    timeout_ms: TimeoutMs = None

    @property
    def limit_ms(self) -> int | None:
        """The limit of one attempt that holds."""
        return self.timeout_ms


class ForwardingStep(_Leaf, frozen=True, kw_only=True):
    """Passes its input on without a look at it: a large one is not brought into memory for it."""


class LlmStep(_Leaf, frozen=True, kw_only=True, tag="llm"):
    """Asks a model. Yields `{"text": …}`, or the object that `output_schema` describes."""

    model: Annotated[
        str,
        _about("`provider:model`, or `echo`, which is offline.", syntax="model", minLength=1, maxLength=256),
    ]
    system: Annotated[str | None, _about("Template of the instructions.", syntax="template")] = None
    prompt: Annotated[
        str | None,
        _about("Template of the user's turn; by default the run's `message`.", syntax="template"),
    ] = None
    settings: Annotated[dict[str, Any], _about("For the model: `temperature`, `max_tokens`, …")] = {}
    output_schema: Annotated[
        dict[str, Any] | None, _about("JSON Schema of the object to answer with.", syntax="schema")
    ] = None
    tools: Annotated[bool, _about("Whether a caller's tools are offered to this step.")] = True

    @property
    def limit_ms(self) -> int:
        return self.timeout_ms or LLM_TIMEOUT_MS


class CodeStep(_Leaf, frozen=True, kw_only=True, tag="code"):
    """Runs Python in a sandbox."""

    code: Annotated[
        str, _about("The body of a function; it must return an object.", syntax="code", minLength=1)
    ]


class WaitStep(ForwardingStep, frozen=True, kw_only=True, tag="wait"):
    """Waits, then passes its input on."""

    ms: Annotated[int, _about("How long, in milliseconds.", minimum=0, maximum=_DAY_MS)]


class PassthroughStep(ForwardingStep, frozen=True, kw_only=True, tag="passthrough"):
    """Passes its input on."""


class LoopStep(BaseStep, frozen=True, kw_only=True, tag="loop", rename={"as_": "as"}):
    """Runs its steps once for each item. Yields `{"items": [last output of each iteration]}`."""

    over: Annotated[
        str,
        _about("The list: a field of the input, or a Python expression.", syntax="expression", minLength=1),
    ]
    as_: Annotated[str, _about("Name of the item inside; `index` is there too.", syntax="variable")] = "item"
    max_concurrency: Annotated[int, _about("Iterations at a time.", minimum=1, maximum=1_000)] = 1
    steps: Steps


class ConditionStep(
    BaseStep, frozen=True, kw_only=True, tag="condition", rename={"if_": "if", "else_": "else"}
):
    """Runs one of two branches; the steps of the other are skipped."""

    if_: Annotated[str, _about("A Python expression over the input.", syntax="expression", minLength=1)]
    then: Steps
    else_: Annotated["list[Step]", _about("Run when `if` is false; may be left out.")] = []


class ParallelStep(BaseStep, frozen=True, kw_only=True, tag="parallel"):
    """Runs its branches at the same time. Yields an object with the last output of each."""

    branches: Annotated[dict[str, Steps], _about("Steps by the name of their branch.", minProperties=1)]


PlainStep: TypeAlias = CodeStep | WaitStep | PassthroughStep
"""A leaf step that asks no model."""

LeafStep: TypeAlias = LlmStep | PlainStep
"""A step that does work itself and is in the trace."""

Step: TypeAlias = LeafStep | LoopStep | ConditionStep | ParallelStep

OVERRIDABLE = tuple(
    dict.fromkeys(
        name
        for kind in get_args(LeafStep)
        for name in kind.__struct_encode_fields__
        if name not in ("id", "name")
    )
)
"""The fields of leaf steps that a call may set anew; a `run` key those alone that its flow offers."""


class Flow(_Strict, frozen=True, kw_only=True):
    """A tree of steps, run from top to bottom; each gets the output of the one before it."""

    slug: Annotated[
        str, _about("Unique in its project; part of the flow's address.", pattern="^[a-z0-9-]{1,128}$")
    ]
    name: Name = None
    capture: Annotated[
        Literal["off", "metadata_only", "redacted", "full"] | None,
        _about("What a trace keeps of inputs and outputs; by default what the project says."),
    ] = None
    capture_failed: Annotated[
        Literal["off", "redacted", "full"] | None,
        _about(
            "How outputs are kept of a run that fails, under capture mode `metadata_only`; by default as the"
            " project says."
        ),
    ] = None
    capture_sample: Annotated[
        float | None,
        _about(
            "Share of runs that are kept whole, where the capture mode is `metadata_only`; by default as the"
            " project says.",
            minimum=0,
            maximum=1,
        ),
    ] = None
    retention_days: Annotated[
        float | None,
        _about("Days after their end for which runs are kept; by default as the project says.", minimum=0),
    ] = None
    content_retention_days: Annotated[
        float | None,
        _about(
            "Days after their end for which runs keep content; by default as the project says.", minimum=0
        ),
    ] = None
    overridable: Annotated[
        list[str] | None,
        _about(
            "Fields of steps that calls with a `run` key may override; by default `prompt`, `system`,"
            " `input`, `settings`, `output_schema` and `model`.",
            items={"enum": list(OVERRIDABLE)},
            maxItems=len(OVERRIDABLE),
        ),
    ] = None
    inputs: Annotated[
        dict[str, Any] | None, _about("JSON Schema of a run's inputs; by default any object.")
    ] = None
    steps: Steps

    def encode(self) -> bytes:
        """The flow as JSON, defaults left out; equal flows give equal bytes. `decode_flow` reads it."""
        return msgspec.json.encode(self)


_decoder = msgspec.json.Decoder(Flow)


def decode_flow(data: bytes) -> Flow:
    """The flow that `Flow.encode` wrote. Checks types only: for flows that this system has stored itself."""
    return _decoder.decode(data)


def flow_schema() -> dict[str, Any]:
    """The JSON Schema of flow files, draft 2020-12."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Runglass flow"}
    return schema | msgspec.json.schema(Flow)


def inside(step: Step) -> Iterator[list[Step]]:
    """The lists of steps that a container holds, in document order."""
    match step:
        case LoopStep():
            yield step.steps
        case ConditionStep():
            yield step.then
            yield step.else_
        case ParallelStep():
            yield from step.branches.values()


def every_step(steps: list[Step]) -> Iterator[Step]:
    """The steps and every step inside of them, in document order."""
    for step in steps:
        yield step
        for inner in inside(step):
            yield from every_step(inner)


def within(step: Step) -> Iterator[Step]:
    """The step and every step inside it, in document order."""
    return every_step([step])


def leaves(steps: list[Step]) -> Iterator[LeafStep]:
    """The steps that do work, in document order, both branches of a condition included."""
    for step in steps:
        if isinstance(step, LeafStep):
            yield step
        else:
            for inner in inside(step):
                yield from leaves(inner)


def step_count(flow: Flow) -> int:
    """How many leaf steps the flow has."""
    return len(list(leaves(flow.steps)))


def find_step(flow: Flow, step_id: str) -> Step | None:
    """The step with this id, a container included; None where there is none."""
    return next((step for step in every_step(flow.steps) if step.id == step_id), None)


def step_index(flow: Flow, step_id: str) -> int:
    """Position, from 0, of the top-level step that is or holds the step with this id. Raises KeyError."""
    for index, top in enumerate(flow.steps):
        if any(step.id == step_id for step in within(top)):
            return index
    raise KeyError(step_id)
