"""A flow: the tree of steps that a run walks, and the ways into it that check what comes in.

The structs are what the engine executes and what the store keeps; `parse_flow` is the only way from a file to
them. Their annotations are the source of the published JSON Schema. This file knows nothing of how a step is
executed.
"""

import functools
from collections.abc import Container, Iterator, Mapping
from itertools import chain, islice
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeAlias

import msgspec

from runglass.defaults import TooManyDefaults, fill_defaults
from runglass.diagnostics import Finding, path_text
from runglass.errors import FlowFileError, Problem, api_error
from runglass.flow_references import unmet_references
from runglass.flow_validation import OVERRIDABLE, SCHEMA_LIMIT_BYTES, FlowRules, provider_missing
from runglass.schemas import errors_in, explain, suggestion

__all__ = [
    "OVERRIDABLE",
    "CheckedFlow",
    "CodeStep",
    "ConditionStep",
    "Flow",
    "LeafStep",
    "LlmStep",
    "LoopStep",
    "ParallelStep",
    "PassthroughStep",
    "Retry",
    "Step",
    "WaitStep",
    "apply_overrides",
    "check_flow",
    "check_inputs",
    "decode_flow",
    "find_step",
    "flow_schema",
    "inside",
    "leaves",
    "parse_flow",
    "step_count",
    "step_index",
    "with_defaults",
    "within",
]

MAX_PROBLEMS = 1_000
MAX_MISTAKES = 10
MAX_UNKNOWN = 5
"""Of the unknown step ids in a request so many are told, with the known id that is near."""

FLOW_LIMIT = 1 << 20
"""Characters of a flow file, and bytes of the overrides of a call: they make a flow of their own."""

_DAY_MS = 86_400_000


def _about(description: str, **rules: Any) -> msgspec.Meta:
    """Description and limits of a field, for the schema only: what is stored has been checked before."""
    return msgspec.Meta(description=description, extra_json_schema=rules)


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
Name = Annotated[str | None, _about("For people.", minLength=1, maxLength=256)]
OnError = Annotated[
    Literal["fail", "continue"],
    _about("`continue`: the step is failed, its output null, and the flow goes on."),
]
Input = Annotated[
    dict[str, Any] | None,
    _about("What the step gets instead of the output before it. Strings inside are templates."),
]
TimeoutMs = Annotated[int | None, _about("Limit of one attempt.", minimum=1, maximum=_DAY_MS)]
Steps = Annotated["list[Step]", _about("Run one after the other.", minItems=1)]


class _Step(_Strict, frozen=True, kw_only=True, tag_field="type"):
    id: StepId
    name: Name = None
    on_error: OnError = "fail"
    input: Input = None


class _Leaf(_Step, frozen=True, kw_only=True):
    retry: Annotated[Retry | None, _about("Tries a failed attempt again; by default never.")] = None
    timeout_ms: TimeoutMs = None


class LlmStep(_Leaf, frozen=True, kw_only=True, tag="llm"):
    """Asks a model. Yields `{"text": …}`, or the object that `output_schema` describes."""

    model: Annotated[
        str, _about("`provider:model`, or `echo`, which is offline.", minLength=1, maxLength=256)
    ]
    system: Annotated[str | None, _about("Template of the instructions.")] = None
    prompt: Annotated[str | None, _about("Template of the user's turn; by default the run's `message`.")] = (
        None
    )
    settings: Annotated[dict[str, Any], _about("For the model: `temperature`, `max_tokens`, …")] = {}
    output_schema: Annotated[dict[str, Any] | None, _about("JSON Schema of the object to answer with.")] = (
        None
    )
    tools: Annotated[bool, _about("Whether a caller's tools are offered to this step.")] = True


class CodeStep(_Leaf, frozen=True, kw_only=True, tag="code"):
    """Runs Python in a sandbox."""

    code: Annotated[str, _about("The body of a function; it must return an object.", minLength=1)]


class WaitStep(_Leaf, frozen=True, kw_only=True, tag="wait"):
    """Waits, then passes its input on."""

    ms: Annotated[int, _about("How long, in milliseconds.", minimum=0, maximum=_DAY_MS)]


class PassthroughStep(_Leaf, frozen=True, kw_only=True, tag="passthrough"):
    """Passes its input on."""


class LoopStep(_Step, frozen=True, kw_only=True, tag="loop", rename={"as_": "as"}):
    """Runs its steps once for each item. Yields `{"items": [last output of each iteration]}`."""

    over: Annotated[str, _about("The list: a field of the input, or a Python expression.", minLength=1)]
    as_: Annotated[str, _about("Name of the item inside; `index` is there too.")] = "item"
    max_concurrency: Annotated[int, _about("Iterations at a time.", minimum=1, maximum=1_000)] = 1
    steps: Steps


class ConditionStep(_Step, frozen=True, kw_only=True, tag="condition", rename={"if_": "if", "else_": "else"}):
    """Runs one of two branches; the steps of the other are skipped."""

    if_: Annotated[str, _about("A Python expression over the input.", minLength=1)]
    then: Steps
    else_: Annotated["list[Step]", _about("Run when `if` is false; may be left out.")] = []


class ParallelStep(_Step, frozen=True, kw_only=True, tag="parallel"):
    """Runs its branches at the same time. Yields an object with the last output of each."""

    branches: Annotated[dict[str, Steps], _about("Steps by the name of their branch.", minProperties=1)]


LeafStep: TypeAlias = LlmStep | CodeStep | WaitStep | PassthroughStep
"""A step that does work itself and is in the trace."""

Step: TypeAlias = LeafStep | LoopStep | ConditionStep | ParallelStep


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
            "Fields of steps that calls with a `run` key may set anew; by default `prompt`, `system`,"
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
    """The flow that `Flow.encode` wrote. Checks types only: for what this system has stored itself."""
    return _decoder.decode(data)


def flow_schema() -> dict[str, Any]:
    """The JSON Schema of flow files, draft 2020-12."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Runglass flow"}
    return schema | msgspec.json.schema(Flow)


@functools.lru_cache(maxsize=4)
def _rules(schema_limit_bytes: int) -> FlowRules:
    return FlowRules(flow_schema(), schema_limit_bytes=schema_limit_bytes)


class CheckedFlow(NamedTuple):
    """A flow, and what its author may want to know though it can be used."""

    flow: Flow
    warnings: list[Problem]


def parse_flow(text: str | bytes, *, file: str = "<flow>") -> Flow:
    """The flow in a YAML or JSON text. Raises FlowFileError with every mistake and its place.

    From the thousandth mistake on they are no longer listed. `file` is only a name for messages.
    """
    return check_flow(text, file=file).flow


def check_flow(
    text: str | bytes,
    *,
    file: str = "<flow>",
    own_providers: Container[str] = (),
    limit_characters: int = FLOW_LIMIT,
    schema_limit_bytes: int = SCHEMA_LIMIT_BYTES,
) -> CheckedFlow:
    """The flow and the warnings about it, at most a thousand; otherwise like `parse_flow`.

    `own_providers` are names of OpenAI-compatible servers: models of theirs need no package.
    """
    # Imported here, so that a server to which nobody pushes a flow does not hold a reader of YAML.
    from runglass.flow_file import read_document

    document = read_document(text, file=file, limit_characters=limit_characters)
    problems = document.problems[:MAX_PROBLEMS]
    warnings: list[Problem] = []
    unreadable = {problem.path for problem in problems}
    for finding in chain(
        _rules(schema_limit_bytes).flow(document.value, own_providers=own_providers),
        unmet_references(document.value),
    ):
        if len(problems) >= MAX_PROBLEMS:
            problems.append(Problem(f"there may be more; only {MAX_PROBLEMS:,} problems are listed"))
            break
        if path_text(finding.path) in unreadable:
            continue
        if not finding.is_warning:
            problems.append(document.problem(finding))
        elif len(warnings) < MAX_PROBLEMS:
            warnings.append(document.problem(finding))
    warnings.sort(key=_appearance)
    if problems:
        raise FlowFileError(sorted(problems, key=_appearance), file=file, warnings=warnings)
    # Not strict, so that 3.0 is an integer, as it is to JSON Schema; nothing else is left to coerce.
    return CheckedFlow(msgspec.convert(document.value, Flow, strict=False), warnings)


def _appearance(problem: Problem) -> tuple[bool, int, int]:
    return problem.line is None, problem.line or 0, problem.column or 0


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


def _all(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for inner in inside(step):
            yield from _all(inner)


def within(step: Step) -> Iterator[Step]:
    """The step and every step inside it, in document order."""
    return _all([step])


def leaves(steps: list[Step]) -> Iterator[LeafStep]:
    """The steps that do work, in document order, both branches of a condition included."""
    return (step for step in _all(steps) if isinstance(step, LeafStep))


def step_count(flow: Flow) -> int:
    """How many leaf steps the flow has."""
    return sum(1 for _ in leaves(flow.steps))


def find_step(flow: Flow, step_id: str) -> Step | None:
    """The step with this id, a container included; None where there is none."""
    return next((step for step in _all(flow.steps) if step.id == step_id), None)


def step_index(flow: Flow, step_id: str) -> int:
    """Position, from 0, of the top-level step that is or holds the step with this id. Raises KeyError."""
    for index, top in enumerate(flow.steps):
        if any(step.id == step_id for step in within(top)):
            return index
    raise KeyError(step_id)


def apply_overrides(
    flow: Flow,
    overrides: Mapping[str, Mapping[str, Any]],
    *,
    schema_limit_bytes: int = SCHEMA_LIMIT_BYTES,
) -> Flow:
    """The flow with fields of leaf steps set anew: `{step id: {field: value}}`, in the file's spelling.

    Raises INVALID_REQUEST naming each field that cannot be set or whose value a flow file could not have, and
    MODEL_NOT_SUPPORTED for a model that names no provider.
    """
    steps = {step.id: step for step in _all(flow.steps)}
    mistakes: list[Finding] = []
    changed: dict[str, LeafStep] = {}
    _refuse_unknown([step_id for step_id in overrides if step_id not in steps], list(steps))
    for step_id, fields in overrides.items():
        if len(mistakes) > MAX_MISTAKES:
            break
        path, step = ("blockOverrides", step_id), steps[step_id]
        if not isinstance(step, LeafStep):
            mistakes.append(Finding("only steps that do work can be changed, not one that holds steps", path))
        elif not isinstance(fields, Mapping):
            mistakes.append(Finding("expected an object of fields", path))
        else:
            fixed = [Finding("cannot be changed", (*path, name)) for name in ("id", "type") if name in fields]
            whole = {**msgspec.to_builtins(step), **fields}
            if isinstance(step, LlmStep) and (problem := provider_missing(whole["model"])):
                raise api_error(
                    "MODEL_NOT_SUPPORTED", f"`{path_text((*path, 'model'))}`: {problem}", step_id=step_id
                )
            found = fixed or list(islice(_rules(schema_limit_bytes).step(whole, path), MAX_MISTAKES + 1))
            mistakes += found
            if not found:
                overridden = msgspec.convert(whole, type(step), strict=False)
                # A name is what traces call the step, in every capture mode, and the same in all runs.
                changed[step_id] = msgspec.structs.replace(overridden, name=step.name)
    if mistakes:
        _refuse(mistakes)
    return msgspec.structs.replace(flow, steps=_replaced(flow.steps, changed)) if changed else flow


def _refuse_unknown(step_ids: list[str], known: list[str]) -> None:
    """Raises INVALID_REQUEST that names the first few of the ids, before anything else is looked at."""
    if not step_ids:
        return
    told = [f"{step_id:.100}" for step_id in step_ids[:MAX_UNKNOWN]]
    mistakes = [
        Finding(f"the flow has no step {step_id!r}{suggestion(step_id, known)}", ("blockOverrides", step_id))
        for step_id in told
    ]
    more = len(step_ids) - len(told)
    _refuse(mistakes, more=f"; and {more:,} more steps that it does not have" if more else "")


def _replaced(steps: list[Step], changed: Mapping[str, LeafStep]) -> list[Step]:
    return [_replaced_step(step, changed) for step in steps]


def _replaced_step(step: Step, changed: Mapping[str, LeafStep]) -> Step:
    match step:
        case LoopStep():
            return msgspec.structs.replace(step, steps=_replaced(step.steps, changed))
        case ConditionStep():
            then, otherwise = _replaced(step.then, changed), _replaced(step.else_, changed)
            return msgspec.structs.replace(step, then=then, else_=otherwise)
        case ParallelStep():
            branches = {name: _replaced(inner, changed) for name, inner in step.branches.items()}
            return msgspec.structs.replace(step, branches=branches)
        case _:
            return changed.get(step.id, step)


def with_defaults(flow: Flow, inputs: dict[str, Any]) -> dict[str, Any]:
    """A run's inputs with the `default`s of the flow's `inputs` where nothing is given.

    Raises INVALID_REQUEST where that would make far too much of them.
    """
    if flow.inputs is None:
        return inputs
    try:
        return fill_defaults(inputs, flow.inputs)
    except TooManyDefaults as error:
        raise api_error("INVALID_REQUEST", f"`inputs` of flow {flow.slug!r}: {error}") from error


def check_inputs(flow: Flow, inputs: dict[str, Any], *, quick_bytes: int | None = None) -> None:
    """Raises INVALID_REQUEST, naming the fields, where a run's inputs do not fit the flow's `inputs`.

    With `quick_bytes`, about the size of the inputs as JSON, raises Unproved like `schemas.errors_in`.
    """
    if flow.inputs is None:
        return
    found = (
        finding._replace(path=(() if finding.path[:1] == ("message",) else ("parameters",)) + finding.path)
        for error in errors_in(inputs, flow.inputs, quick_bytes=quick_bytes)
        for finding in explain(error, flow.inputs)
    )
    if mistakes := list(islice(found, MAX_MISTAKES + 1)):
        _refuse(mistakes)


def _sentence(mistake: Finding) -> str:
    path, named = path_text(mistake.path), f"`{mistake.path[-1]}` "
    if mistake.message.startswith(named):
        return f"`{path}` {mistake.message.removeprefix(named)}"
    return f"`{path}`: {mistake.message}"


def _refuse(mistakes: list[Finding], *, more: str = "") -> NoReturn:
    listed = list(dict.fromkeys(_sentence(mistake) for mistake in mistakes))
    more = more or ("; and more" if len(listed) > MAX_MISTAKES else "")
    raise api_error("INVALID_REQUEST", "; ".join(listed[:MAX_MISTAKES]) + more)
