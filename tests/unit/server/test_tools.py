"""The format of offered tools, and which results answer which calls."""

from typing import Any

import pytest

from runglass.errors import APIError
from runglass.server.requests.tools import check_tools, match_tool_results


def tool(name: Any = "look_up", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def choice(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("tools", "tool_choice"),
    [
        ([], None),
        ([], "auto"),
        ([], "none"),
        ([tool()], None),
        ([tool()], "required"),
        ([tool()], choice("look_up")),
        ([tool("a"), tool("b")], "b"),
        ([tool("none")], "none"),
        ([tool("a"), tool("b")], choice("b")),
        ([tool("A-z_09"), tool("x" * 64)], "auto"),
        ([tool(description="d", parameters={"type": "object"}, strict=True, more=1)], None),
        ([tool(description=None, parameters=None, strict=None)], None),
        ([tool(f"t{number}") for number in range(64)], None),
    ],
)
def test_valid_tools_are_accepted(tools: Any, tool_choice: Any) -> None:
    check_tools(tools, tool_choice)


@pytest.mark.parametrize(
    ("tools", "tool_choice", "named"),
    [
        ("x", None, "`tools`"),
        ({}, None, "`tools`"),
        ([3], None, "`tools[0]`"),
        ([tool(), {"function": {"name": "b"}}], None, "`tools[1]`"),
        ([{"type": "retrieval", "function": {"name": "b"}}], None, "`tools[0]`"),
        ([{"type": "function", "name": "b"}], None, "`tools[0]`"),
        ([tool(parameters=[])], None, "`tools[0].function.parameters`"),
        ([tool(description=1)], None, "`tools[0].function.description`"),
        ([tool(strict="yes")], None, "`tools[0].function.strict`"),
        ([tool(), tool()], None, "`tools[1]`"),
        ([tool(f"t{number}") for number in range(65)], None, "65 entries; at most 64"),
        ([], "required", "`toolChoice`"),
        ([tool()], "always", "`toolChoice`"),
        ([tool()], 1, "`toolChoice`"),
        ([tool()], "look", "'look', which is not among `tools`"),
        ([], "look_up", "'look_up', which is not among `tools`"),
        ([tool()], {"type": "function"}, "`toolChoice`"),
        ([tool()], {"function": {"name": "look_up"}}, "`toolChoice`"),
        ([tool()], choice("other"), "'other'"),
        ([], choice("look_up"), "'look_up'"),
    ],
)
def test_invalid_tools_are_refused_with_their_place(tools: Any, tool_choice: Any, named: str) -> None:
    with pytest.raises(APIError) as refused:
        check_tools(tools, tool_choice)
    assert refused.value.code == "TOOLS_INVALID"
    assert named in refused.value.message


@pytest.mark.parametrize("name", ["", "a b", "a.b", "x" * 65, "é", "a\n", None, 3, "٣"])
def test_an_invalid_name_of_a_tool_is_refused(name: Any) -> None:
    with pytest.raises(APIError) as refused:
        check_tools([tool("good"), tool(name)])
    assert refused.value.code == "TOOL_NAME_INVALID"
    assert "`tools[1].function.name`" in refused.value.message


def call(call_id: str, name: str = "look_up") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}


PENDING = [call("a", "first"), call("b", "second")]
ASKED = {"role": "assistant", "content": None, "toolCalls": PENDING}
GOOD = {"role": "tool", "toolCallId": "a", "content": "1"}


@pytest.mark.parametrize(
    "second",
    [
        {"role": "tool", "toolCallId": "b", "content": "2"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "tool", "toolCallId": "b", "tool_call_id": "b", "name": "x", "content": "2"},
        {"toolCallId": "b", "output": "2"},
        {"tool_call_id": "b", "output": 2},
        {"role": None, "toolCallId": "b", "tool_call_id": None, "output": 2},
        {"role": "tool", "toolCallId": "b", "output": "2"},
    ],
)
def test_tool_results_are_matched_in_every_spelling(second: dict[str, Any]) -> None:
    matched = [
        {"role": "tool", "toolCallId": "a", "name": "first", "content": "1"},
        {"role": "tool", "toolCallId": "b", "name": "second", "content": "2"},
    ]
    assert match_tool_results(PENDING, [ASKED, GOOD, second]) == matched
    assert match_tool_results(PENDING, [second, GOOD]) == matched


@pytest.mark.parametrize(
    ("output", "content"),
    [("", ""), ({"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'), (None, "null"), (False, "false"), ([], "[]")],
)
def test_a_result_is_text_or_becomes_json(output: Any, content: str) -> None:
    for field in ("output", "content"):
        (matched,) = match_tool_results([call("a")], [{"toolCallId": "a", field: output}])
        assert matched["content"] == content


def test_results_of_earlier_rounds_do_not_count_even_under_the_same_id() -> None:
    earlier = [{"role": "user", "content": "q"}, ASKED, GOOD, {"toolCallId": "b", "output": "old"}]
    new = [GOOD, {"toolCallId": "b", "output": "new"}]
    assert match_tool_results(PENDING, [*earlier, ASKED, *new])[1]["content"] == "new"
    with pytest.raises(APIError, match="no result for the tool call 'b'"):
        match_tool_results(PENDING, [*earlier, ASKED, GOOD])


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([], "no result for the tool call 'a', 'b'"),
        ([GOOD], "no result for the tool call 'b'"),
        ([GOOD, GOOD], "two results for the tool call 'a'"),
        ([GOOD, {"toolCallId": "c", "output": 1}], "no tool call 'c' is pending; the run waits for 'a', 'b'"),
        ([GOOD, {"output": 1}], "`toolCallMessages[2]` must name its tool call"),
        ([GOOD, {"toolCallId": 3, "output": 1}], "`toolCallMessages[2]` must name its tool call"),
        ([GOOD, {"toolCallId": "b", "tool_call_id": "a", "output": 1}], "must name its tool call"),
        ([GOOD, {"toolCallId": "b"}], "has no `content`"),
        ([GOOD, {"toolCallId": "b", "content": "1", "output": "2"}], "both `content` and `output`"),
        ([{"role": "user", "content": "and now?"}], "`toolCallMessages[1]` is not the result"),
        (["x"], "`toolCallMessages[1]` is not the result"),
    ],
)
def test_results_that_do_not_match_the_calls_are_refused(results: list[Any], said: str) -> None:
    with pytest.raises(APIError) as refused:
        match_tool_results(PENDING, [ASKED, *results], execution_id="run")
    assert (refused.value.code, refused.value.execution_id) == ("TOOL_RESULTS_MISMATCH", "run")
    assert said in refused.value.message


def test_a_result_that_is_an_image_is_refused() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}]
    with pytest.raises(APIError, match="a tool's result has text alone") as refused:
        match_tool_results(PENDING, [ASKED, GOOD, {"toolCallId": "b", "content": parts}])
    assert refused.value.code == "INVALID_ATTACHMENT"
