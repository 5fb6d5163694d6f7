"""The tree of steps: reading and storing it, overriding it for one run, and checking a run's inputs."""

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given

from runglass.errors import APIError, FlowExecutionError
from runglass.flows.arguments import apply_overrides, check_inputs
from runglass.flows.flow import (
    CodeStep,
    ConditionStep,
    Flow,
    LlmStep,
    LoopStep,
    ParallelStep,
    PassthroughStep,
    Retry,
    WaitStep,
    decode_flow,
    find_step,
    flow_schema,
    leaves,
)
from runglass.flows.parser import parse_flow
from tests.examples import examples
from tests.flows import EXAMPLE, LLM, ONE, flow_trees


def test_every_field_of_a_flow_file_is_read() -> None:
    assert parse_flow(EXAMPLE) == Flow(
        slug="grade-3",
        name="Grade 3 spelling",
        capture="metadata_only",
        inputs={
            "type": "object",
            "properties": {"message": {"type": "string"}, "topic": {"type": "string"}},
            "required": ["message"],
        },
        steps=[
            LlmStep(
                id="correct",
                name="Correct the text",
                model="openai:gpt-4o-mini",
                system="You are a kind teacher.",
                prompt="Correct this text: {{ message }}",
                settings={"temperature": 0.2, "max_tokens": 400},
                output_schema={
                    "type": "object",
                    "properties": {"text": {"type": "string"}},
                    "required": ["text"],
                },
                retry=Retry(max_attempts=3, initial_delay_ms=100, multiplier=3.0, max_delay_ms=5000),
                tools=False,
                timeout_ms=60000,
                on_error="continue",
            ),
            CodeStep(id="words", code='return {"words": text.split(), "count": len(text.split())}\n'),
            LoopStep(
                id="each",
                over="words",
                as_="word",
                max_concurrency=4,
                steps=[PassthroughStep(id="look", input={"text": "{{ steps.correct.text }}"})],
            ),
            ConditionStep(
                id="route",
                if_="count > 3",
                then=[WaitStep(id="long", ms=0)],
                else_=[PassthroughStep(id="short")],
            ),
            ParallelStep(
                id="both", branches={"a": [PassthroughStep(id="left")], "b": [PassthroughStep(id="right")]}
            ),
            WaitStep(id="cool_down", ms=500),
            PassthroughStep(id="keep"),
        ],
    )


def test_a_flow_file_has_its_defaults() -> None:
    flow = parse_flow(
        LLM + "  - {id: l, type: loop, over: x, steps: [{id: p, type: passthrough, retry: {}}]}\n"
    )
    llm, loop = flow.steps
    assert (flow.name, flow.capture, flow.inputs) == (None, None, None)
    assert llm == LlmStep(id="a", model="echo", tools=True, settings={}, on_error="fail")
    assert isinstance(loop, LoopStep)
    assert (loop.as_, loop.max_concurrency) == ("item", 1)
    assert loop.steps == [PassthroughStep(id="p", retry=Retry())]
    assert Retry() == Retry(max_attempts=1, initial_delay_ms=200, multiplier=2.0, max_delay_ms=10_000)


@examples(25, of=100)
@given(flow_trees())
def test_generated_flows_are_valid_files_and_come_back_from_the_store(flow: Flow) -> None:
    assert parse_flow(flow.encode()) == flow
    assert decode_flow(flow.encode()) == flow


def test_encoding_speaks_the_file_s_names_and_leaves_defaults_out() -> None:
    flow = parse_flow(EXAMPLE)
    data = json.loads(flow.encode())
    assert data["steps"][2]["as"] == "word"
    assert data["steps"][3]["if"] == "count > 3"
    assert list(data["steps"][3]["else"][0].items()) == [("type", "passthrough"), ("id", "short")]
    assert data["steps"][6] == {"type": "passthrough", "id": "keep"}


def test_the_published_schema_agrees_with_the_parser() -> None:
    schema = flow_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    validator = jsonschema_rs.validator_for(schema, offline=True)
    good = json.loads(parse_flow(EXAMPLE).encode())
    assert validator.is_valid(good)
    for step in good["steps"]:
        assert not validator.is_valid({**good, "steps": [{**step, "unknown": 1}]})
        assert not validator.is_valid({**good, "steps": [{**step, "id": "not an id"}]})
    assert not validator.is_valid({**good, "steps": []})


def test_waits_between_attempts_grow_up_to_a_bound() -> None:
    retry = Retry(max_attempts=100, initial_delay_ms=200, multiplier=1.5, max_delay_ms=1000)
    assert [retry.delay_ms(failed) for failed in (1, 2, 4, 5, 99)] == [200, 300, 675, 1000, 1000]
    assert Retry(initial_delay_ms=0, multiplier=100).delay_ms(99) == 0


def test_overrides_set_fields_of_leaves_at_any_depth() -> None:
    flow = parse_flow(EXAMPLE)
    before = flow.encode()
    changed = apply_overrides(
        flow,
        {
            "correct": {
                "model": "echo",
                "output_schema": None,
                "retry": {"max_attempts": 2},
                "timeout_ms": 5.0,
            },
            "look": {"input": {"text": "{{ word }}"}},
            "short": {"name": "Short", "timeout_ms": 7},
            "right": {"on_error": "continue"},
        },
    )
    correct = find_step(changed, "correct")
    assert isinstance(correct, LlmStep)
    assert (correct.model, correct.output_schema, correct.timeout_ms) == ("echo", None, 5)
    assert correct.retry == Retry(max_attempts=2)
    assert correct.prompt == "Correct this text: {{ message }}"
    assert find_step(changed, "look") == PassthroughStep(id="look", input={"text": "{{ word }}"})
    # A name is no field of what a step does, and every trace tells it: it stays the flow's.
    assert find_step(changed, "short") == PassthroughStep(id="short", timeout_ms=7)
    assert find_step(changed, "right") == PassthroughStep(id="right", on_error="continue")
    assert [leaf.id for leaf in leaves(changed.steps)] == [leaf.id for leaf in leaves(flow.steps)]
    assert flow.encode() == before
    assert apply_overrides(flow, {}) == flow


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"each": {"over": "x"}},
            "`blockOverrides.each`: only steps that do work can be changed, not one that holds steps",
        ),
        (
            {"correct": {"promt": "x"}},
            "`blockOverrides.correct.promt`: unknown field 'promt'; did you mean 'prompt'?",
        ),
        (
            {"correct": {"prompt": "a\n{{"}, "words": {"code": "return ("}},
            "`blockOverrides.correct.prompt`: the template is malformed: unexpected end of input, expected "
            "expression; `blockOverrides.words.code`: the code is not valid Python: '(' was never closed",
        ),
        (
            {"correct": {"output_schema": {"type": "array"}}},
            "`blockOverrides.correct.output_schema.type`: the schema must allow objects; inputs and outputs "
            "are always objects",
        ),
    ],
)
def test_an_override_that_a_file_could_not_have_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(FlowExecutionError) as caught:
        apply_overrides(parse_flow(EXAMPLE), overrides)
    assert (caught.value.code, caught.value.status, caught.value.message) == ("INVALID_REQUEST", 422, message)


INPUTS = """\
type: object
properties:
  message: {type: string, minLength: 1}
  topic: {enum: [spelling, grammar]}
  pages: {type: array, items: {type: object, properties: {n: {type: integer}}, required: [n]}}
required: [message]
additionalProperties: false
"""


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "`message` is missing"),
        (
            {"message": "x", "topic": "speling"},
            "`parameters.topic`: expected spelling or grammar, found 'speling'; did you mean 'spelling'?",
        ),
        (
            {"message": "x", "pages": [{"n": 1}, {"n": "2"}, {}]},
            "`parameters.pages[1].n`: expected an integer, found '2'; `parameters.pages[2].n` is missing",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Any], message: str) -> None:
    flow = parse_flow("slug: a\n" + ONE + "inputs:\n  " + INPUTS.replace("\n", "\n  "))
    with pytest.raises(FlowExecutionError) as caught:
        check_inputs(flow, inputs)
    assert caught.value.code == "INVALID_REQUEST"
    assert sorted(caught.value.message.split("; `")) == sorted(message.split("; `"))


def test_inputs_that_fit_are_accepted() -> None:
    flow = parse_flow("slug: a\n" + ONE + "inputs:\n  " + INPUTS.replace("\n", "\n  "))
    check_inputs(flow, {"message": "x", "topic": "grammar", "pages": [{"n": 1}]})
    check_inputs(Flow(slug="a", steps=[PassthroughStep(id="a")]), {"anything": [None]})


def test_at_most_ten_mistakes_are_told() -> None:
    flow = Flow(
        slug="a",
        steps=[PassthroughStep(id="a")],
        inputs={"properties": {"a": {}}, "additionalProperties": False},
    )
    with pytest.raises(APIError) as caught:
        check_inputs(flow, {f"x{i}": 1 for i in range(5000)})
    assert caught.value.message.count("unknown field") == 10
    assert caught.value.message.endswith("; and more")
