"""Flows for tests: files to break, and generated trees that run offline, at once, and sometimes fail."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import strategies as st

from runglass.errors import FlowFileError
from runglass.flows.flow import (
    CodeStep,
    ConditionStep,
    Flow,
    LeafStep,
    LoopStep,
    ParallelStep,
    PassthroughStep,
    Retry,
    Step,
    WaitStep,
)
from runglass.flows.parser import parse_flow

EXAMPLE = """\
slug: grade-3                 # [a-z0-9-], unique in its project
name: Grade 3 spelling
capture: metadata_only        # off | metadata_only | redacted | full
inputs:
  type: object
  properties: {message: {type: string}, topic: {type: string}}
  required: [message]
steps:
  - id: correct
    name: Correct the text
    type: llm
    model: openai:gpt-4o-mini
    system: You are a kind teacher.
    prompt: "Correct this text: {{ message }}"
    settings: {temperature: 0.2, max_tokens: 400}
    output_schema: {type: object, properties: {text: {type: string}}, required: [text]}
    retry: {max_attempts: 3, initial_delay_ms: 100, multiplier: 3, max_delay_ms: 5000}
    tools: false
    timeout_ms: 60000
    on_error: continue
  - id: words
    type: code
    code: |
      return {"words": text.split(), "count": len(text.split())}
  - id: each
    type: loop
    over: words
    as: word
    max_concurrency: 4
    steps: [{id: look, type: passthrough, input: {text: "{{ steps.correct.text }}"}}]
  - id: route
    type: condition
    if: count > 3
    then: [{id: long, type: wait, ms: 0}]
    else: [{id: short, type: passthrough}]
  - id: both
    type: parallel
    branches: {a: [{id: left, type: passthrough}], b: [{id: right, type: passthrough}]}
  - id: cool_down
    type: wait
    ms: 500
  - id: keep
    type: passthrough
"""

HEAD = "slug: a\nsteps:\n"
"""Starts a file whose first step begins on line 3."""

ONE = "steps: [{id: a, type: passthrough}]\n"
LLM = HEAD + "  - id: a\n    type: llm\n    model: echo\n"


ANY_KIND = "llm, code, wait, passthrough, loop, condition or parallel"
"""What messages say that a `type` may be."""


def problems(text: str | bytes) -> list[str]:
    """Each problem of a flow file named `f.yaml`, as people read it."""
    with pytest.raises(FlowFileError) as caught:
        parse_flow(text, file="f.yaml")
    assert len(caught.value.problems) == len(str(caught.value).splitlines())
    return str(caught.value).splitlines()


_EMPTY: dict[Any, Any] = {str: "x", int: 0, list: [], dict: {}}


def smallest_step(kind: type[Step], **fields: Any) -> dict[str, Any]:
    """The step `here` of this kind as in a file, with nothing but what it must have, and these fields."""
    required = {
        field.encode_name: _EMPTY[get_origin(written := get_args(field.type)[0]) or written]
        for field in msgspec.structs.fields(kind)
        if field.required
    }
    return {"type": kind.__struct_config__.tag, **required, "id": "here", **fields}


SUCCEEDS = "return {'n': 1}"
SUCCEEDS_LATER = "if attempt < 2:\n    raise ValueError('again')\nreturn {'attempt': attempt}"
FAILS = "raise ValueError('no')"

MAX_NESTING = 2

ON_ERROR: st.SearchStrategy[Literal["fail", "continue"]] = st.sampled_from(["fail", "continue"])


def runnable_leaves(step_id: str) -> st.SearchStrategy[LeafStep]:
    common: dict[str, st.SearchStrategy[Any]] = {
        "id": st.just(step_id),
        "on_error": ON_ERROR,
        "input": st.sampled_from([None, {"text": "{{ attempt }}"}]),
        "retry": st.sampled_from([None, Retry(max_attempts=2, initial_delay_ms=0)]),
    }
    return st.one_of(
        st.builds(PassthroughStep, **common),
        st.builds(WaitStep, ms=st.just(0), **common),
        st.builds(CodeStep, code=st.sampled_from([SUCCEEDS, SUCCEEDS_LATER, FAILS]), **common),
    )


@st.composite
def flow_trees(
    draw: st.DrawFn, leaves: Callable[[str], st.SearchStrategy[LeafStep]] = runnable_leaves
) -> Flow:
    """Flows of every step kind but llm; `leaves` makes the leaf for an id."""
    ids = (f"s{number}" for number in itertools.count(1))
    return Flow(slug="generated", steps=_steps(draw, leaves, ids, MAX_NESTING))


def _steps(
    draw: st.DrawFn, leaves: Callable[[str], st.SearchStrategy[LeafStep]], ids: Iterator[str], nesting: int
) -> list[Step]:
    return [_step(draw, leaves, ids, nesting) for _ in range(draw(st.integers(1, 1 + nesting)))]


def _step(
    draw: st.DrawFn, leaves: Callable[[str], st.SearchStrategy[LeafStep]], ids: Iterator[str], nesting: int
) -> Step:
    step_id = next(ids)
    kind = draw(st.sampled_from(["leaf", "loop", "condition", "parallel"] if nesting else ["leaf"]))
    if kind == "leaf":
        return draw(leaves(step_id))
    on_error = draw(ON_ERROR)
    steps = _steps(draw, leaves, ids, nesting - 1)
    if kind == "loop":
        return LoopStep(
            id=step_id,
            on_error=on_error,
            over=draw(st.sampled_from(["[]", "[1]", "[1, 2, 3]"])),
            as_=draw(st.sampled_from(["item", "word"])),
            max_concurrency=draw(st.integers(1, 3)),
            steps=steps,
        )
    others = _steps(draw, leaves, ids, nesting - 1) if draw(st.booleans()) else []
    if kind == "condition":
        test = draw(st.sampled_from(["True", "False"]))
        return ConditionStep(id=step_id, on_error=on_error, if_=test, then=steps, else_=others)
    branches = {"a": steps} | ({"b": others} if others else {})
    return ParallelStep(id=step_id, on_error=on_error, branches=branches)


SAME = {"$ref": "#/$defs/n"}


def nested(depth: int, inner: Any = 1) -> Any:
    for _ in range(depth):
        inner = {"x": inner}
    return inner


def branching(node: dict[str, Any], depth: int = 40) -> dict[str, Any]:
    """A schema whose `default`, which is checked against it, makes a validator branch at each level."""
    return {
        "type": "object",
        "properties": {"a": SAME},
        "required": ["a"],
        "$defs": {"n": node},
        "default": {"a": nested(depth)},
    }


def doubling(depth: int, how: str = "allOf") -> dict[str, Any]:
    """550 bytes that take a validator 2**depth steps, by a keyword that takes a list."""
    return branching({"type": "object", "properties": {"x": {how: [SAME, SAME]}}}, depth)
