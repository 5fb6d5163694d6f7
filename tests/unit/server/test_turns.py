"""`messages`: who may speak where, and what comes out in one spelling."""

from typing import Any

import pytest

from runglass.errors import APIError
from runglass.server.turns import Conversation, check_messages

NOW = {"role": "user", "content": "and now?"}
CALL = {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def check(messages: Any, *, message: str | None = None, size_bytes: int = 100) -> Conversation:
    return check_messages(messages, message=message, size_bytes=size_bytes)


def refusal(messages: Any, **rest: Any) -> APIError:
    with pytest.raises(APIError) as refused:
        check(messages, **rest)
    return refused.value


def test_the_last_turn_is_the_message_and_those_before_it_the_history() -> None:
    before = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
    assert check([*before, NOW]) == Conversation(before, "and now?")
    assert check([NOW]) == Conversation([], "and now?")


@pytest.mark.parametrize("messages", [None, []])
def test_without_messages_the_message_stands(messages: Any) -> None:
    assert check(messages, message="hi") == Conversation([], "hi")
    assert check(messages) == Conversation([], None)


@pytest.mark.parametrize(("calls", "call_id"), [("toolCalls", "toolCallId"), ("tool_calls", "tool_call_id")])
def test_tool_turns_come_out_in_one_spelling(calls: str, call_id: str) -> None:
    given = [
        {"role": "assistant", "content": None, calls: [CALL], "refusal": None},
        {"role": "tool", call_id: "a", "content": {"n": 1}, "name": "look_up"},
        NOW,
    ]
    assert check(given).history == [
        {"role": "assistant", "toolCalls": [CALL]},
        {"role": "tool", "toolCallId": "a", "content": '{"n":1}', "name": "look_up"},
    ]


@pytest.mark.parametrize("role", ["system", "developer", "User", ""])
def test_a_role_that_turns_do_not_have(role: str) -> None:
    error = refusal([{"role": role, "content": []}, NOW])
    assert (error.code, error.status) == ("MESSAGES_ROLE_INVALID", 400)
    assert "`messages[0].role`" in error.message


def test_the_current_turn_is_the_users() -> None:
    for last in ({"role": "assistant", "content": "x"}, {"role": "tool", "toolCallId": "a", "content": "x"}):
        error = refusal([NOW, last])
        assert error.code == "MESSAGES_ROLE_INVALID"
        assert "`messages[1]`" in error.message


@pytest.mark.parametrize(
    ("turn", "place"),
    [
        (3, "messages[0]"),
        ({}, "messages[0]"),
        ({"role": 1}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": None, "toolCalls": [CALL]}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}]}, "messages[0].content"),
        ({"role": "assistant"}, "messages[0]"),
        ({"role": "assistant", "content": 1}, "messages[0].content"),
        ({"role": "assistant", "toolCalls": {}}, "messages[0].toolCalls"),
        ({"role": "assistant", "toolCalls": [{}]}, "messages[0].toolCalls[0]"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "messages[0].toolCalls[0]"),
        (
            {"role": "assistant", "toolCalls": [{"id": "a", "function": {"name": "n", "arguments": {}}}]},
            "messages[0].toolCalls[0].function.arguments",
        ),
        ({"role": "tool", "content": "x"}, "messages[0].toolCallId"),
        ({"role": "tool", "content": "x", "toolCallId": ""}, "messages[0].toolCallId"),
        ({"role": "tool", "content": "x", "tool_call_id": 3}, "messages[0].toolCallId"),
    ],
)
def test_a_turn_of_the_wrong_shape_is_named(turn: Any, place: str) -> None:
    error = refusal([turn, NOW])
    assert (error.code, error.status) == ("INVALID_REQUEST", 422)
    assert f"`{place}`" in error.message


def test_messages_and_message_exclude_each_other() -> None:
    assert refusal([NOW], message="x").code == "INVALID_REQUEST"
    assert refusal([NOW], message="").code == "INVALID_REQUEST"


def test_one_megabyte_is_taken_and_one_byte_more_is_not() -> None:
    assert check([NOW], size_bytes=1_000_000).message == "and now?"
    error = refusal([NOW], size_bytes=1_000_001)
    assert (error.code, error.status) == ("MESSAGES_TOO_LARGE", 413)
