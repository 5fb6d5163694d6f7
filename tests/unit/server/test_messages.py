"""`messages`: who may speak where, and what comes out in one spelling."""

import json
from typing import Any

import pytest

from runglass.errors import APIError
from runglass.server.requests.messages import Conversation, check_messages
from runglass.wire.run_api import Attachment

NOW = {"role": "user", "content": "and now?"}
CALL = {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}

IMAGE = "https://a.b/c.PNG?size=2"


def part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


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


def test_a_member_in_both_spellings_is_one() -> None:
    given = [
        {"role": "assistant", "content": [], "toolCalls": [CALL], "tool_calls": [CALL]},
        {"role": "tool", "toolCallId": "a", "tool_call_id": "a", "content": "x"},
        NOW,
    ]
    assert check(given).history == [
        {"role": "assistant", "toolCalls": [CALL]},
        {"role": "tool", "toolCallId": "a", "content": "x"},
    ]


def test_parts_of_text_are_joined_and_images_stand_beside_them() -> None:
    said = check(
        [
            {"role": "user", "content": [part("one "), image("https://a.b/photo"), part("two")]},
            {"role": "assistant", "content": [part("th"), part("ree")]},
            {"role": "assistant", "toolCalls": [CALL]},
            {"role": "tool", "toolCallId": "a", "content": [part("fo"), part("ur")]},
            {"role": "user", "content": [part("five"), image(IMAGE)], "attachments": [{"url": "theirs"}]},
        ]
    )
    assert said.history == [
        {
            "role": "user",
            "content": "one two",
            "attachments": [{"url": "https://a.b/photo", "mimeType": "image/jpeg"}],
        },
        {"role": "assistant", "content": "three"},
        {"role": "assistant", "toolCalls": [CALL]},
        {"role": "tool", "toolCallId": "a", "content": "four"},
    ]
    assert said.message == "five"
    assert said.images == (Attachment(url=IMAGE, mime_type="image/png"),)


@pytest.mark.parametrize("content", [[], [1], [part("a"), {"n": 1}], [{"type": "text"}], {"type": "text"}])
def test_a_tools_result_that_is_no_list_of_parts_is_a_value_like_any_other(content: Any) -> None:
    turns = [{"role": "tool", "toolCallId": "a", "content": content}, NOW]
    assert json.loads(check(turns).history[0]["content"]) == content


@pytest.mark.parametrize(
    ("role", "parts", "words"),
    [
        ("user", [image("data:image/png;base64,AAAA")], "(`data:`) are not taken"),
        ("user", [image("http://a.b/c.png")], "must be a full https:// address"),
        ("user", [image("https://a.b/" + "c" * 2048)], "at most 2,048 are taken"),
        ("user", [image(IMAGE)] * 11, "has 11 images; at most 10 are taken"),
        ("tool", [part("a"), image(IMAGE)], "a tool's result has text alone"),
    ],
)
def test_an_image_that_cannot_be_shown_is_named(role: str, parts: Any, words: str) -> None:
    error = refusal([{"role": role, "content": parts, "toolCallId": "a"}, NOW])
    assert (error.code, error.status) == ("INVALID_ATTACHMENT", 400)
    assert "`messages[0].content" in error.message
    assert words in error.message


@pytest.mark.parametrize("role", ["system", "developer", "User", ""])
def test_an_unknown_role_is_refused(role: str) -> None:
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
        ({"role": "user", "content": []}, "messages[0].content"),
        ({"role": "user", "content": {"type": "text", "text": "x"}}, "messages[0].content"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "audio"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [part("a"), {"type": "image_url"}]}, "messages[0].content[1].image_url"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": IMAGE}]},
            "messages[0].content[0].image_url",
        ),
        ({"role": "assistant", "content": [image(IMAGE)]}, "messages[0].content"),
        ({"role": "assistant", "content": []}, "messages[0]"),
        ({"role": "assistant", "toolCalls": [CALL], "tool_calls": []}, "messages[0]"),
        ({"role": "tool", "content": "x", "toolCallId": "a", "tool_call_id": "b"}, "messages[0]"),
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
