"""Two states of a span become one: in any order, in any grouping, and as often as they come."""

from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall, TokenBreakdown
from runglass.recording.merge import merge
from tests.examples import examples
from tests.recorded_spans import at, raw

TEXTS = st.none() | st.sampled_from(["", "a", "b", "aa", "é"])
NUMBERS = st.none() | st.integers(0, 9)
VALUES = st.sampled_from([None, 0, 1, True, 1.0, "1", "x", [], [1], {"a": 1, "b": 2}, {"b": 2, "a": 1}])
OBJECTS = st.none() | st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3).map(raw)
ITEMS = st.fixed_dictionaries({"name": st.sampled_from("ab")}, optional={"at": st.sampled_from(["9", "10"])})
# As senders have them: in no order, and some of them twice.
LISTS = st.none() | st.lists(ITEMS, max_size=3).map(raw)
AMOUNTS = st.none() | st.sampled_from(["0", "0.5", "0.25", "10"])
NAMES = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)
MESSAGES = st.none() | st.lists(
    st.fixed_dictionaries({"role": st.sampled_from("ab")}, optional={"at": st.sampled_from(["9", "10"])}),
    max_size=3,
)


def state(**fields: Any) -> SpanState:
    return SpanState(span_id="00000000000000aa", **fields)


def call(**fields: Any) -> SpanState:
    return state(model_calls=(ModelCall(number=1, model="m", **fields),))


@st.composite
def calls(draw: st.DrawFn) -> tuple[ModelCall, ...]:
    """A call as a dialect tells it, whose numbers do not contradict each other."""
    if draw(st.booleans()):
        return ()
    tokens, cached, written, reasoning = None, draw(NUMBERS), draw(NUMBERS), draw(NUMBERS)
    unknown = draw(st.sampled_from([None, "no_usage", "bad_usage"]))
    cost = list_cost = None
    if draw(st.booleans()):
        prompt = (cached or 0) + (written or 0) + draw(st.integers(0, 3))
        completion = (reasoning or 0) + draw(st.integers(0, 3))
        tokens = TokenBreakdown(prompt, completion, prompt + completion)
        cost, list_cost = draw(AMOUNTS), draw(AMOUNTS)
        list_cost = None if cost is None else list_cost
        unknown = "no_price" if cost is None else None
    messages = draw(MESSAGES)
    return (
        ModelCall(
            number=1,
            model=draw(st.sampled_from(["m", "mm"])),
            finish_reason=draw(TEXTS),
            tokens=tokens,
            cached_tokens=cached,
            cache_write_tokens=written,
            reasoning_tokens=reasoning,
            cost_usd=cost,
            list_cost_usd=list_cost,
            cost_unknown=unknown,
            request=None if messages is None else raw({"messages": messages}),
            response=draw(OBJECTS),
        ),
    )


@st.composite
def states(draw: st.DrawFn) -> SpanState:
    model_calls = draw(calls())
    call = model_calls[0] if model_calls else None
    return state(
        parent_span_id=draw(st.none() | st.sampled_from(["00000000000000bb", "00000000000000cc"])),
        name=draw(TEXTS),
        kind=draw(st.sampled_from(["llm", "guardrail", "other"])),
        is_gen_ai=draw(st.booleans()),
        start_time_unix_nano=draw(st.none() | st.sampled_from(["9", "10", "100"])),
        end_time_unix_nano=draw(st.none() | st.sampled_from(["9", "10", "100"])),
        status=draw(st.sampled_from(["unset", "ok", "error"])),
        input=draw(OBJECTS),
        input_size_bytes=draw(NUMBERS),
        truncated=draw(st.booleans()),
        tokens=None if call is None else call.tokens,
        cost_usd=draw(AMOUNTS) if call is None else call.cost_usd,
        model_calls=model_calls,
        session=draw(TEXTS),
        tags=draw(NAMES),
        attributes=draw(OBJECTS),
        events=draw(LISTS),
        notes=draw(NAMES),
    )


def text(state: SpanState) -> Any:
    """To compare by: `1 == True` in Python and not in JSON, and the order of members says nothing."""
    return msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(state)), order="sorted")


@pytest.mark.parametrize("response", [{"a": None, "b": 1}, {"b": 1}])
def test_one_and_true_are_two_values_whichever_comes_first(response: dict[str, Any]) -> None:
    one, other = call(response=response), call(response={"b": True})
    assert text(merge(one, other)) == text(merge(other, one))


@examples(300, of=2000)
@given(one=states(), other=states(), third=states())
def test_states_join(one: SpanState, other: SpanState, third: SpanState) -> None:
    both = merge(one, other)
    assert merge(one, one) is one
    assert merge(both, one) is both
    assert merge(both, other) is both
    assert text(both) == text(merge(other, one))
    assert text(merge(both, third)) == text(merge(one, merge(other, third)))
    assert merge(None, one) is one


@examples(100, of=500)
@given(one=states(), other=states())
def test_the_parts_of_tokens_never_exceed_them(one: SpanState, other: SpanState) -> None:
    for call in merge(one, other).model_calls:
        if call.tokens is not None:
            assert (call.cached_tokens or 0) + (call.cache_write_tokens or 0) <= call.tokens.prompt
            assert call.tokens.total == call.tokens.prompt + call.tokens.completion
            assert call.cost_unknown == (None if call.cost_usd else "no_price")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ({"start_time_unix_nano": at(1)}, {"start_time_unix_nano": "99"}, {"start_time_unix_nano": "99"}),
        ({"end_time_unix_nano": at(1)}, {"end_time_unix_nano": "99"}, {"end_time_unix_nano": at(1)}),
        ({"status": "ok"}, {"status": "error"}, {"status": "error"}),
        ({"kind": "agent"}, {"kind": "llm"}, {"kind": "llm"}),
        ({"name": "a"}, {"name": "bb"}, {"name": "bb"}),
        ({"name": "a"}, {"name": "b"}, {"name": "b"}),
        ({"tags": ("b",)}, {"tags": ("a",)}, {"tags": ("a", "b")}),
        ({"truncated": True}, {}, {"truncated": True}),
        ({"cost_usd": "2.5"}, {"cost_usd": "10"}, {"cost_usd": "10"}),
        ({"cost_usd": "1.0"}, {"cost_usd": "1"}, {"cost_usd": "1.0"}),
        (
            {"attributes": raw({"b": 1, "x": {"y": 1}})},
            {"attributes": raw({"a": 1, "x": {"y": 22}})},
            {"attributes": {"a": 1, "b": 1, "x": {"y": 22}}},
        ),
        (
            {"events": raw([{"at": "10", "name": "a"}])},
            {"events": raw([{"at": "9", "name": "a"}, {"at": "10", "name": "a"}])},
            {"events": [{"at": "9", "name": "a"}, {"at": "10", "name": "a"}]},
        ),
    ],
)
def test_each_field_has_its_rule(one: dict[str, Any], other: dict[str, Any], both: dict[str, Any]) -> None:
    for merged in (merge(state(**one), state(**other)), merge(state(**other), state(**one))):
        assert merged == state(**both)


def test_messages_that_come_one_by_one_are_in_order_of_time_and_a_whole_list_beats_them() -> None:
    question = call(request=raw({"messages": [{"at": "9", "content": "question"}]}))
    answer = call(request=raw({"messages": [{"at": "10", "content": "answer"}]}))
    whole = call(request=raw({"messages": [{"content": "all"}], "system": "s"}))
    both = merge(answer, question)
    assert both.model_calls[0].request == {
        "messages": [{"at": "9", "content": "question"}, {"at": "10", "content": "answer"}]
    }
    for merged in (merge(both, whole), merge(merge(question, whole), answer)):
        assert merged.model_calls[0].request == {"messages": [{"content": "all"}], "system": "s"}


def test_the_cost_that_a_sender_tells_beats_ours() -> None:
    tokens = TokenBreakdown(1, 1, 2)
    ours = call(tokens=tokens, cost_usd="0.5")
    told = call(tokens=tokens, cost_usd="0.1", list_cost_usd="0.5")
    [merged] = merge(ours, told).model_calls
    assert (merged.cost_usd, merged.list_cost_usd) == ("0.1", "0.5")
    assert merge(ours, told).cost_usd == "0.1"


def test_usage_that_comes_later_is_no_longer_unknown() -> None:
    silent = call(cost_unknown="no_usage")
    told = call(tokens=TokenBreakdown(1, 1, 2), cost_unknown="no_price")
    assert merge(silent, told).model_calls[0].cost_unknown == "no_price"
    assert merge(told, call(cost_usd="1")).model_calls[0].cost_unknown is None


def test_lists_that_grow_without_end_keep_what_came_first() -> None:
    items = [{"at": str(number).zfill(6), "name": "x" * 1000} for number in range(2000)]
    parts = [raw(items[first : first + 100]) for first in range(0, 2000, 100)]
    states = [msgspec.structs.replace(call(request={"messages": part}), events=part) for part in parts]
    forth, back = (reduce(merge, order) for order in (states, states[::-1]))
    assert forth == back
    [merged] = forth.model_calls
    assert (forth.truncated, merged.truncated) == (True, True)
    for kept in (forth.events or [], (merged.request or {})["messages"]):
        assert kept == items[: len(kept)]
        assert 1000 < len(kept) < 1048
    assert merge(forth, states[-1]) is forth
