"""The tree of steps: reading and storing it, overriding it for one run, and checking a run's inputs."""

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.errors import APIError, FlowExecutionError
from runglass.flows.arguments import apply_overrides, check_inputs
from runglass.flows.flow import (
    CodeStep,
    ConditionStep,
    Flow,
    LeafStep,
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
    step_count,
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


def test_an_llm_step_ends_after_ten_minutes_unless_it_says_otherwise() -> None:
    ask = LlmStep(id="ask", model="echo")
    assert ask.limit_ms == 600_000
    assert LlmStep(id="ask", model="echo", timeout_ms=5).limit_ms == 5
    assert PassthroughStep(id="pass").limit_ms is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(st.text(), JSON, max_size=3)


def any_leaves(step_id: str) -> st.SearchStrategy[LeafStep]:
    retry = st.builds(Retry, max_attempts=st.integers(1, 100), multiplier=st.floats(1, 100))
    return st.builds(
        LlmStep,
        id=st.just(step_id),
        name=st.none() | st.text(),
        model=st.text(),
        system=st.none() | st.text(),
        prompt=st.none() | st.text(),
        settings=OBJECT,
        output_schema=st.none() | OBJECT,
        tools=st.booleans(),
        input=st.none() | OBJECT,
        retry=st.none() | retry,
        timeout_ms=st.none() | st.integers(1),
    ) | st.builds(CodeStep, id=st.just(step_id), code=st.text())


@examples(25, of=100)
@given(flow_trees(any_leaves))
def test_a_stored_flow_comes_back_as_it_was(flow: Flow) -> None:
    assert decode_flow(flow.encode()) == flow
    assert decode_flow(flow.encode()).encode() == flow.encode()


@examples(25, of=100)
@given(flow_trees())
def test_generated_flows_are_valid_files(flow: Flow) -> None:
    assert parse_flow(flow.encode()) == flow


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


def test_the_published_schema_explains_every_field() -> None:
    for name, definition in flow_schema()["$defs"].items():
        assert definition["additionalProperties"] is False, name
        assert definition["description"], name
        undescribed = [f for f, rule in definition["properties"].items() if "description" not in rule]
        assert undescribed in ([], ["type"]), name


def test_the_tree_is_walked_in_document_order() -> None:
    flow = parse_flow(EXAMPLE)
    names = ["correct", "words", "look", "long", "short", "left", "right", "cool_down", "keep"]
    assert [leaf.id for leaf in leaves(flow.steps)] == names
    assert step_count(flow) == len(names)
    assert find_step(flow, "right") == PassthroughStep(id="right")
    assert isinstance(find_step(flow, "both"), ParallelStep)
    assert find_step(flow, "a") is None


def test_waits_between_attempts_grow_up_to_a_bound() -> None:
    retry = Retry(max_attempts=100, initial_delay_ms=200, multiplier=1.5, max_delay_ms=1000)
    assert [retry.delay_ms(failed) for failed in (1, 2, 3, 4, 5, 6, 99)] == [
        200,
        300,
        450,
        675,
        1000,
        1000,
        1000,
    ]
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
        ({"corect": {}}, "`blockOverrides.corect`: the flow has no step 'corect'; did you mean 'correct'?"),
        (
            {"each": {"over": "x"}},
            "`blockOverrides.each`: only steps that do work can be changed, not one that holds steps",
        ),
        ({"correct": 5}, "`blockOverrides.correct`: expected an object of fields"),
        (
            {"correct": {"promt": "x"}},
            "`blockOverrides.correct.promt`: unknown field 'promt'; did you mean 'prompt'?",
        ),
        (
            {"correct": {"outputSchema": {}}},
            "`blockOverrides.correct.outputSchema`: unknown field 'outputSchema'; did you mean "
            "'output_schema'?",
        ),
        ({"words": {"prompt": "x"}}, "`blockOverrides.words.prompt`: unknown field 'prompt'"),
        ({"keep": {"id": "keep"}}, "`blockOverrides.keep.id`: cannot be changed"),
        ({"keep": {"type": "llm"}}, "`blockOverrides.keep.type`: cannot be changed"),
        (
            {"correct": {"prompt": 5}},
            "`blockOverrides.correct.prompt`: expected a string or null, found 5",
        ),
        (
            {"correct": {"prompt": "a\n{{"}, "words": {"code": "return ("}},
            "`blockOverrides.correct.prompt`: the template is malformed: unexpected end of input, expected "
            "expression; `blockOverrides.words.code`: the code is not valid Python: '(' was never closed",
        ),
        (
            {"correct": {"settings": {"temprature": 1}}},
            "`blockOverrides.correct.settings.temprature`: unknown setting 'temprature'; did you mean "
            "'temperature'?",
        ),
        (
            {"correct": {"retry": {"max_attempts": 0}}},
            "`blockOverrides.correct.retry.max_attempts`: 0 is less than the minimum of 1",
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


@pytest.mark.parametrize("model", ["no-provider", "openai:", ":gpt", "Echo"])
def test_an_override_with_a_model_of_no_provider_has_a_code_of_its_own(model: str) -> None:
    with pytest.raises(FlowExecutionError, match=r"`blockOverrides\.correct\.model`") as caught:
        apply_overrides(parse_flow(EXAMPLE), {"correct": {"model": model}})
    assert (caught.value.code, caught.value.status) == ("MODEL_NOT_SUPPORTED", 400)
    assert caught.value.step_id == "correct"


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
        ({"message": 5}, "`message`: expected a string, found 5"),
        ({"message": ""}, "`message`: must not be empty"),
        (
            {"message": "x", "topic": "speling"},
            "`parameters.topic`: expected spelling or grammar, found 'speling'; did you mean 'spelling'?",
        ),
        (
            {"message": "x", "tpic": 1},
            "`parameters.tpic`: unknown field 'tpic'; did you mean 'topic'?",
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
