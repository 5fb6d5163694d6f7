"""Flows: the text of a file and the tree of its steps, stored, overridden for one run, its inputs checked."""

import json
from typing import get_args

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from runglass.errors import APIError, FlowFileError, Problem
from runglass.flows.arguments import apply_overrides, check_fields, check_inputs
from runglass.flows.flow import (
    Flow,
    LeafStep,
    LlmStep,
    LoopStep,
    PassthroughStep,
    Retry,
    decode_flow,
    find_step,
    flow_schema,
    leaves,
)
from runglass.flows.models import EXTRAS, NEVER, PLAIN, PRICED, CommonSettings, SettingRules
from runglass.flows.parser import parse_flow
from tests.examples import examples
from tests.flows import EXAMPLE, HEAD, LLM, ONE, flow_trees, problems, smallest_step


def test_a_flow_file_is_stored_with_every_field_as_it_is_called_there() -> None:
    assert json.loads(parse_flow(EXAMPLE).encode()) == YAML(typ="safe").load(EXAMPLE)


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


def test_every_setting_of_the_library_is_allowed_or_refused_by_name() -> None:
    """One that pydantic-ai or we add must be given its place: with all of them, or among those with care."""
    assert set(CommonSettings.__struct_fields__) == PLAIN | {PRICED} | set(EXTRAS)
    assert not any(EXTRAS[name] & NEVER[name] for name in EXTRAS)


@pytest.mark.parametrize("overridable", ['"code"', "[coode]", "[5]", "[id]", "[name]"])
def test_a_flow_may_offer_existing_fields_alone(overridable: str) -> None:
    text = f"slug: a\noverridable: {overridable}\nsteps: [{{id: a, type: passthrough}}]"
    with pytest.raises(FlowFileError, match="overridable"):
        parse_flow(text)


@pytest.mark.parametrize("kind", get_args(LeafStep))
def test_no_field_of_any_kind_of_step_is_open_unless_the_flow_says_so(kind: type[LeafStep]) -> None:
    flow = msgspec.convert({"slug": "a", "overridable": [], "steps": [smallest_step(kind)]}, Flow)
    for field in msgspec.structs.fields(kind):
        if field.name in ("id", "name"):
            continue
        with pytest.raises(APIError, match=f"list '{field.encode_name}' in the flow's `overridable`"):
            check_fields(flow, {"here": {field.encode_name: "another value"}}, SettingRules({}))


def test_at_most_ten_mistakes_are_told() -> None:
    inputs = {"properties": {"a": {}}, "additionalProperties": False}
    flow = Flow(slug="a", steps=[PassthroughStep(id="a")], inputs=inputs)
    for mistakes in (10, 11, 5000):
        with pytest.raises(APIError) as caught:
            check_inputs(flow, {f"x{i}": 1 for i in range(mistakes)})
        assert caught.value.message.count("unknown field") == 10
        assert caught.value.message.endswith("; and more") == (mistakes > 10)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_like_yaml(indent: int | str | None) -> None:
    flow = parse_flow(EXAMPLE)
    data = json.loads(flow.encode())
    data["name"] = "caf\u00e9 \U0001f600 \u2028 \\ / \x07"
    text = json.dumps(data, indent=indent)
    assert parse_flow(text) == msgspec.structs.replace(flow, name=data["name"])
    assert parse_flow(text.replace("/", "\\/").encode()) == parse_flow(text)


def test_yaml_1_2_scalars_and_aliases_are_read() -> None:
    flow = parse_flow(
        "\ufeffslug: a\r\ncapture: off\r\nsteps:\r\n"
        "  - &one\r\n    id: a\r\n    type: llm\r\n    model: echo\r\n    timeout_ms: 3.0\r\n"
        "    input: {yes: no, n: 1e3, o: 0o17, s: '2020-01-01', e: , big: 36893488147419103232}\r\n"
        "  - {id: b, type: passthrough, input: &data {x: [1]}}\r\n"
        "  - {id: c, type: passthrough, input: *data}\r\n"
    )
    assert flow.capture == "off"
    step = flow.steps[0]
    assert isinstance(step, LlmStep)
    assert step.timeout_ms == 3
    expected = {"yes": "no", "n": 1000.0, "o": 15, "s": "2020-01-01", "e": None, "big": 2**65}
    assert step.input == expected
    assert flow.steps[1].input == flow.steps[2].input == {"x": [1]}
    assert decode_flow(flow.encode()) == flow
    assert parse_flow(b"\xef\xbb\xbf%YAML 1.2\n---\nslug: a\n" + ONE.encode()).slug == "a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: the file is empty"),
        ("hello\n", "1:1: expected an object, found 'hello'"),
        (b"\x89PNG\r\n\x1a\n", "1:1: the file is not UTF-8 text: byte 0x89"),
        ("slug: é\nname: ü".encode("latin-1"), "1:7: the file is not UTF-8 text: byte 0xE9"),
        ("slug: a".encode("utf-16"), "1:1: the file is UTF-16 or UTF-32; save it as UTF-8"),
        ("slug: a\nname: b\0", "2:8: the character U+0000 may not stand in a text file"),
        (
            "slug: a\nsteps:\n\t- id: a\n",
            r"3:1: not valid YAML: found character '\t' that cannot start any token "
            "(while scanning for the next token); indent with spaces, not tabs",
        ),
        (
            "slug: a\nsteps: [\n",
            "3:1: not valid YAML: expected the node content, but found '<stream end>' "
            "(while parsing a flow node from line 3)",
        ),
        (
            'slug: a\nname: "\\UFFFFFFFF"\n',
            "2:8: not valid YAML: an escape names a character beyond U+10FFFF",
        ),
        ("%YAML 2.0\n---\nslug: a\n", "1:1: only YAML 1.2 is read"),
        ("[" * 5000, "1:151: values are nested deeper than 150 levels"),
        ("&a [*a]", "1:1: values are nested deeper than 150 levels, or an alias contains itself"),
        (
            "x" * (1 << 20) + "x",
            " the file is larger than 1,048,576 characters (setting flow_limit_bytes)",
        ),
    ],
)
def test_text_that_cannot_be_read_is_refused_with_its_place(text: str | bytes, expected: str) -> None:
    assert problems(text) == [f"f.yaml:{expected}"]


def test_aliases_that_multiply_are_refused() -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert problems(laughs)[0].endswith("aliases repeat more than 100,000 values")


def test_values_that_json_cannot_hold_are_refused() -> None:
    text = LLM + (
        "    input:\n"
        "      a: .nan\n"
        "      b: [1, -.inf, 1e999]\n"
        "      c: 2020-01-01\n"
        "      d: !!binary aGk=\n"
        "      e: !!python/object/apply:os.system [ls]\n"
        '      f: "\\uD800"\n'
        "      5: x\n"
        "      true: x\n"
        "      g: 1\n"
        "      h: 1\n"
        "      g: 2\n"
        "      <<: {x: 1}\n"
        "      ? [1]\n"
        "      : 2\n"
        f"      i: {'9' * 5000}\n"
        "      j: !!int x\n"
        "      k: !local {}\n"
    )
    where = "at steps[0].input"
    assert problems(text) == [
        f"f.yaml:7:10: '.nan' is not a number that JSON can hold {where}.a",
        f"f.yaml:8:14: '-.inf' is not a number that JSON can hold {where}.b[1]",
        f"f.yaml:8:21: '1e999' is not a number that JSON can hold {where}.b[2]",
        f"f.yaml:9:10: 2020-01-01 reads as a date, which JSON does not have; put it in quotes {where}.c",
        f"f.yaml:10:10: the tag 'binary' is not supported {where}.d",
        f"f.yaml:11:10: the tag 'python/object/apply:os.system' is not supported {where}.e",
        f"f.yaml:12:10: an escape names half a surrogate pair, which is not a character {where}.f",
        f'f.yaml:13:7: the key 5 is not a string; put it in quotes {where}["5"]',
        f"f.yaml:14:7: the key true is not a string; put it in quotes {where}.true",
        f"f.yaml:17:7: the key 'g' is given twice, first on line 15 {where}.g",
        f'f.yaml:18:7: merge keys (`<<`) are not supported; write the fields out {where}["<<"]',
        f"f.yaml:19:9: a key must be a string, not a list or an object {where}",
        f"f.yaml:21:10: '{'9' * 56}… cannot be read as int {where}.i",
        f"f.yaml:22:10: 'x' cannot be read as int {where}.j",
        f"f.yaml:23:10: the tag '!local' is not supported {where}.k",
    ]


def test_the_list_of_problems_has_a_bound() -> None:
    unknown = [f"x{number}" for number in range(1001)]
    assert problems("".join(["slug: a\n", *(f"{name}: 1\n" for name in unknown), ONE])) == [
        *(f"f.yaml:{line}:1: unknown field '{name}' at {name}" for line, name in enumerate(unknown[:-1], 2)),
        "f.yaml: there may be more; only 1,000 problems are listed",
    ]


NOISE = st.sampled_from(
    [
        *("[", "]", "{", "}", '"', "'", ",", "#", "|", ">", "&a", "*a", "!!int", "!", "<<:", '"\\U'),
        *("FFFFFFFF", "2020-13-99", "0x", ".inf", "1e999", "{{", "}}", "{%", "%YAML", "---", " "),
        *("\n", "  ", "\t", ": ", "- ", "? ", "\ufeff", HEAD),
        *("- {id: a, type: code, code: ", "- {type: loop, if: "),
    ]
)  # fmt: skip


@settings(deadline=None)
@given(st.one_of(st.text(), st.binary(), st.lists(NOISE).map("".join), st.text().map(lambda t: HEAD + t)))
def test_whatever_comes_in_gives_a_flow_or_located_problems(text: str | bytes) -> None:
    problems: list[Problem] | None = None
    try:
        flow = parse_flow(text)
    except FlowFileError as error:
        problems = error.problems
    else:
        assert decode_flow(flow.encode()) == flow
    assert problems != []
