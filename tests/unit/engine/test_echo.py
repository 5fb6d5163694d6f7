"""The built-in model `echo` keeps what the flow file's documentation promises of it.

For the schemas that people write it makes up an object, and a small one.
"""

import asyncio
import json
import re
from decimal import Decimal
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.config.settings import Price, Settings
from runglass.engine.models.echo import STREAMED, WORDS_AT_ONCE, pieces_of, word_count
from runglass.engine.models.gateway import ModelAnswer, ModelGateway, ModelRequest
from runglass.engine.workers.schema_example import smallest_object
from runglass.errors import StepFailure
from runglass.flows.schemas.schema import Unproved
from runglass.limits import pace
from runglass.log.trace import TokenBreakdown
from tests.fakes import VirtualClock
from tests.unit.engine.fake_provider import LOOK

TIME = {"type": "function", "function": {"name": "time", "parameters": {}}}
PIECE_S = 0.002


async def ask(
    *messages: dict[str, Any], price: Price | None = None, **fields: Any
) -> tuple[ModelAnswer, list[str]]:
    pieces: list[str] = []
    request = ModelRequest(model="echo", messages=list(messages), **fields)
    models = ModelGateway(Settings(prices={} if price is None else {"echo": price}))
    return await models.complete(request, pieces.append), pieces


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("price", "cost_usd"),
    [(None, None), (Price(input_per_mtok=Decimal(1), output_per_mtok=Decimal(10)), Decimal("0.000037"))],
)
async def test_echo_says_the_last_user_text_and_counts_words_as_tokens(
    price: Price | None, cost_usd: Decimal | None
) -> None:
    said = [user("one"), {"role": "assistant", "content": "two"}, user("Say  this\nnow ")]
    answer, pieces = await ask(*said, system="be kind", price=price)
    assert answer.output == {"text": "Say  this\nnow "}
    assert pieces == ["Say  this\nnow "]
    response = answer.response
    assert response.tokens == TokenBreakdown(prompt=7, completion=3, total=10)
    assert (response.model_used, response.cost_usd) == ("echo", cost_usd)


async def test_with_a_schema_echo_makes_the_smallest_object_and_streams_its_json() -> None:
    schema = {
        "type": "object",
        "properties": {"grade": {"type": "integer", "minimum": 1}, "note": {"type": "string"}},
        "required": ["grade"],
    }
    answer, pieces = await ask(user("Grade this."), output_schema=schema)
    assert answer.output == {"grade": 1}
    assert json.loads("".join(pieces)) == answer.output


async def test_calls_have_valid_arguments_and_ids_that_differ_between_the_steps_of_a_run() -> None:
    steps: list[dict[str, Any]] = [
        {"system": "Be kind."},
        {"system": "Be strict."},
        {"settings": {"seed": 1}},
        {"output_schema": {"type": "object"}},
    ]
    answers = [(await ask(user("Hi"), tools=[LOOK, TIME], **step))[0] for step in steps]
    again = await ask(user("Hi"), tools=[LOOK, TIME], **steps[0])
    assert again == (answers[0], []), "they are the same again, and nothing is said meanwhile"
    calls = answers[0].response.tool_calls
    assert answers[0].output == {"text": ""}
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"word": ""}, {}]
    answers.append((await ask(user("Ho"), tools=[LOOK, TIME]))[0])
    ids = [call["id"] for answer in answers for call in answer.response.tool_calls]
    assert len(set(ids)) == len(ids) == 2 * len(answers)
    assert all(re.fullmatch("call_[0-9a-f]{12}", call_id) for call_id in ids)


async def test_content_that_is_no_text_is_refused() -> None:
    with pytest.raises(StepFailure, match="must be text") as caught:
        await ask({"role": "user", "content": [{"type": "image_url"}]})
    assert caught.value.code == "INVALID_INPUT"


@given(st.lists(st.text(min_size=1), max_size=300).map(" ".join))
def test_a_long_text_is_said_in_pieces_of_so_many_words_that_join_to_exactly_the_text(text: str) -> None:
    *before, last = list(pieces_of(text)) or [""]
    assert "".join([*before, last]) == text
    assert {len(piece.split()) for piece in before} <= {WORDS_AT_ONCE}
    assert len(last.split()) <= WORDS_AT_ONCE


@given(st.text(alphabet=" \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x00a1\x7f\xa0é", max_size=40))
def test_words_are_counted_as_split_tells_them_apart(text: str) -> None:
    assert word_count(text) == len(text.split())


async def test_a_book_is_said_to_its_end_and_others_have_a_turn_after_each_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While another project is about, a rest as well."""
    text, pieces, turns, seen = "word " * 5_000, list[str](), 0, list[int]()
    clock = VirtualClock()
    monkeypatch.setattr(pace, "clock", clock)
    monkeypatch.setattr(pace, "last_seen", [(7, 0.0)])

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def hear(piece: str) -> None:
        pieces.append(piece)
        seen.append(turns)
        clock.set_back(-PIECE_S)

    task = asyncio.create_task(other())
    async with ModelGateway(Settings()) as models:
        await models.complete(ModelRequest(model="echo", messages=[user(text)]), hear)
    task.cancel()
    assert "".join(pieces) == text
    assert pieces[-1] == text[STREAMED:]
    assert len(set(seen)) == len(seen)
    assert clock.slept_s[: len(pieces) - 3] == [pytest.approx(pace.REST * PIECE_S)] * (len(pieces) - 3)


def with_field(schema: Any) -> dict[str, Any]:
    """The schema of an object whose field `f` has this one."""
    return {"properties": {"f": schema}, "required": ["f"]}


def in_field(schema: Any) -> Any:
    return smallest_object(with_field(schema))["f"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, ""),
        ({"type": "string", "minLength": 2.0}, "aa"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "integer", "minimum": 1, "multipleOf": 5}, 5),
        ({"type": "number", "minimum": 0.5, "maximum": 0.75}, 0.5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "minimum": 0.25, "multipleOf": 0.1}, 0.3),
        ({"type": ["string", "null"]}, ""),
        ({"type": "boolean"}, True),
        ({"type": "array"}, []),
        ({"type": "array", "minItems": 2.0}, [None, None]),
        (
            {"type": "array", "prefixItems": [{"const": 7}], "items": {"type": "string"}, "minItems": 2},
            [7, ""],
        ),
        ({"type": "object", "minProperties": 2, "properties": {"a": {"const": 1}}}, {"a": 1, "p0": None}),
        ({"type": "object", "minProperties": 2.0}, {"p0": None, "p1": None}),
        ({"enum": ["b", "a", "c"]}, "b"),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"type": "string", "default": "hello"}, "hello"),
        ({"type": "integer", "default": "not one"}, 0),
        ({"anyOf": [{"type": "integer", "minimum": 10}, {"type": "string"}]}, 10),
        ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 1}]}, 0),
        ({"allOf": [{"type": "integer", "minimum": 2}, {"minimum": 5}]}, 5),
        ({"type": "string", "format": "uuid"}, "00000000-0000-0000-0000-000000000000"),
        ({"type": "string", "format": "date"}, "2000-01-01"),
        ({}, None),
        (True, None),
    ],
)
def test_a_value_is_valid_and_small(schema: Any, value: Any) -> None:
    assert in_field(schema) == value


def test_references_and_recursion_come_to_an_end() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["name", "left", "right"],
            }
        },
    }
    assert smallest_object(tree) == {"name": "a", "left": None, "right": None}


def test_parts_of_an_object_schema_add_up() -> None:
    parts = [{"properties": {name: {"type": "integer"}}, "required": [name]} for name in ("a", "b")]
    assert smallest_object({"allOf": parts, "required": ["c"]}) == {"a": 0, "b": 0, "c": None}


def test_the_same_schema_gives_a_fresh_object_each_time() -> None:
    schema = {"properties": {"list": {"const": []}}, "required": ["list"]}
    smallest_object(schema)["list"].append("changed")
    assert smallest_object(schema) == {"list": []}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        with_field(False),
        with_field({"type": "string", "pattern": "^[A-Z]+$"}),
        with_field({"type": "integer", "minimum": 3, "exclusiveMinimum": 3, "maximum": 3}),
        with_field({"type": "integer", "minimum": 2, "maximum": 1}),
        with_field({"type": "string", "minLength": 10**9}),
        with_field({"$ref": "#/properties/f"}),
        with_field({"$ref": "#"}),
        with_field({"anyOf": [{"$ref": "#"}] * 9}),
    ],
)
def test_a_schema_without_a_value_is_refused_with_the_reason(schema: dict[str, Any]) -> None:
    with pytest.raises(StepFailure, match="could not make up an object") as caught:
        smallest_object(schema)
    assert caught.value.code == "INVALID_OUTPUT"
    assert not caught.value.may_retry


@pytest.mark.parametrize("schema", [{"type": "no-such-type"}, {"$ref": "https://example.com/schema.json"}])
def test_what_is_no_usable_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(StepFailure, match="not a usable JSON Schema") as caught:
        smallest_object(schema)
    assert (caught.value.code, caught.value.may_retry) == ("INVALID_INPUT", False)


@pytest.mark.parametrize("schema", [{"$comment": "x" * 4_096}, {"properties": {"f": {"enum": [0] * 500}}}])
def test_a_large_schema_is_not_searched_where_that_must_be_quick(schema: dict[str, Any]) -> None:
    assert smallest_object(schema) == {}
    with pytest.raises(Unproved):
        smallest_object(schema, quick=True)


def bounded(kind: str, low: int, span: int) -> dict[str, Any]:
    return {"type": kind, "minimum": low, "maximum": low + span}


leaves = st.one_of(
    st.builds(bounded, st.sampled_from(["integer", "number"]), st.integers(-50, 50), st.integers(0, 9)),
    st.builds(
        lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
        *[st.integers(0, 5)] * 2,
    ),
    st.builds(lambda items: {"enum": items}, st.lists(st.text(max_size=4) | st.integers(), min_size=1)),
    st.builds(lambda item: {"const": item}, st.none() | st.booleans() | st.text(max_size=4)),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}]),
)


def grown(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.dictionaries(st.sampled_from("abc"), parts, max_size=3)
    return st.one_of(
        st.builds(lambda fields: {"type": "object", "properties": fields, "required": list(fields)}, names),
        st.builds(
            lambda item, least: {"type": "array", "items": item, "minItems": least}, parts, st.integers(0, 3)
        ),
        st.builds(lambda ways: {"anyOf": ways}, st.lists(parts, min_size=1, max_size=3)),
    )


@given(st.recursive(leaves, grown, max_leaves=12))
def test_a_value_is_found_for_every_satisfiable_schema_of_the_usual_kinds(schema: dict[str, Any]) -> None:
    assert jsonschema_rs.is_valid(schema, in_field(schema))
