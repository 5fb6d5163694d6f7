"""Trees for other programs: slices that nest whatever the times are, messages as conventions have them."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runglass.log.trace import ModelCall, RunSummary
from runglass.outlines.outline import TreeRow
from runglass.run_files.gen_ai import call_attributes
from runglass.run_files.perfetto import PerfettoWriter

RUN = RunSummary(
    id="01a216ae-3af3-75ae-86e9-2b635727f90f",
    flow_id="f",
    status="completed",
    started_at="2026-01-01T00:00:00.000Z",
    completed_at="2026-01-01T00:00:00.100Z",
    duration_ms=100,
)


@st.composite
def trees(draw: st.DrawFn) -> list[TreeRow]:
    """Rows in pre-order, each inside of the time of its parent; some have not begun."""
    rows: list[TreeRow] = []

    def add(parent: int, depth: int, start: int, end: int) -> None:
        for _ in range(draw(st.integers(0, 3 if depth < 3 else 0))):
            times = sorted([draw(st.integers(start, end)), draw(st.integers(start, end))])
            has_begun = draw(st.integers(0, 9)) > 0
            number = len(rows)
            rows.append(
                TreeRow(
                    number=number,
                    parent=parent,
                    depth=depth,
                    kind="branch",
                    name=f"row {number}",
                    iteration=-1,
                    attempt=0,
                    status="completed" if has_begun else "skipped",
                    start=times[0] if has_begun else None,
                    end=times[1] if has_begun else None,
                    tokens=0,
                    cost_usd=None,
                    position=0,
                )
            )
            if has_begun:
                add(number, depth + 1, *times)

    add(-1, 0, 0, 100)
    return rows


@given(trees(), st.integers(1, 5))
def test_slices_nest_and_each_is_below_its_parent_or_on_a_track_of_its_own(
    rows: list[TreeRow], piece: int
) -> None:
    writer = PerfettoWriter(RUN)
    data = writer.opening()
    for first in range(0, len(rows), piece):
        data += writer.rows([(row, None) for row in rows[first : first + piece]])
    events = json.loads(data + writer.closing())["traceEvents"]
    parents = {row.name: "run" if row.parent < 0 else rows[row.parent].name for row in rows}
    opened: dict[int, list[str]] = {}
    times: dict[int, int] = {}
    for event in (each for each in events if each["ph"] != "M"):
        stack = opened.setdefault(event["tid"], [])
        assert event["ts"] >= times.get(event["tid"], 0)
        times[event["tid"]] = event["ts"]
        if event["ph"] == "E":
            stack.pop()
            continue
        assert not stack or stack[-1] == parents[event["name"]]
        stack.append(event["name"])
    assert not any(opened.values())
    begun = [event["name"] for event in events if event["ph"] == "B"]
    assert begun == ["run", *(row.name for row in rows if row.start is not None)]
    named = [event["tid"] for event in events if event["ph"] == "M" and event["name"] == "thread_name"]
    assert sorted(named) == sorted(opened)


def told(**fields: Any) -> dict[str, Any]:
    for name in ("request", "response"):
        if name in fields:
            fields[name] = msgspec.Raw(msgspec.json.encode(fields[name]))
    call = ModelCall(number=1, model="openai:gpt-x", provider="openai", **fields)
    return dict(call_attributes(call, call.provider))


def test_a_conversation_with_tools_and_images_is_in_the_words_of_the_conventions() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, image, {"odd": 1}]},
        {"role": "assistant", "content": None, "toolCalls": [call]},
        {"role": "tool", "toolCallId": "c1", "content": "blue"},
    ]
    said = told(
        request={
            "messages": messages,
            "settings": {"temperature": 0.5, "seed": 7, "other": "x", "top_p": "no"},
        },
        response={"role": "assistant", "content": None, "toolCalls": [call]},
        finish_reason="tool_calls",
    )
    assert json.loads(said["gen_ai.input.messages"]) == [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "look"},
                {"type": "uri", "modality": "image", "uri": "https://x/y.png"},
                {"type": "text", "content": '{"odd":1}'},
            ],
        },
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": "sky"}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "blue"}]},
    ]
    (answer,) = json.loads(said["gen_ai.output.messages"])
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "tool_call")
    assert said["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert (said["gen_ai.request.temperature"], said["gen_ai.request.seed"]) == (0.5, 7)
    assert "gen_ai.request.top_p" not in said
    assert said["gen_ai.request.model"] == "gpt-x"
