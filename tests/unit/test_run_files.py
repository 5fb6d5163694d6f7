"""Files with runs: read back as written, whatever the borders of their pieces; trees for other programs."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import encode

from runglass.errors import RunFileError
from runglass.log.events import decode_event
from runglass.log.fold import fold
from runglass.log.trace import ModelCall, RunSummary, StepTrace
from runglass.outlines.outline import TreeRow
from runglass.run_files.file_reader import RunFileReader
from runglass.run_files.gen_ai import call_attributes
from runglass.run_files.header import FlowOfRun, RunHeader, file_name, lines, members
from runglass.run_files.imported_log import ImportedLog
from runglass.run_files.perfetto import PerfettoWriter
from tests.memory import most_memory
from tests.run_logs import run_logs

RUN = "01a216ae-3af3-75ae-86e9-2b635727f90f"
FLOW = "01a216ae-3aa8-730f-a3af-cb1a6577fac3"
SESSION = "01a216ae-0000-730f-a3af-cb1a6577fac3"
SOURCE = b'{"slug":"slug","steps":[{"type":"passthrough","id":"a"}]}'
MOST_VALUES = 1_000_000


def as_stored(events: Sequence[dict[str, Any]]) -> list[bytes]:
    """The events of a generated run, as those of a run with whole ids."""
    ids = {"executionId": RUN, "runId": RUN, "flowId": FLOW, "sessionId": SESSION}
    return [encode(event | {name: ids[name] for name in ids if name in event}) for event in events]


def header_of(events: Sequence[bytes]) -> RunHeader:
    first = json.loads(events[0])
    keeps_content = b'{"eventType":"run_input"' in b"".join(events[1:2])
    return RunHeader(
        run_id=RUN,
        version=first["version"],
        capture="full" if keeps_content else "metadata_only",
        trigger_type=first["triggerType"],
        session_id=first.get("sessionId"),
        flow=FlowOfRun(id=FLOW, slug="slug", source=msgspec.Raw(SOURCE)),
    )


def as_lines(header: bytes, events: Sequence[bytes]) -> bytes:
    return header + b"\n" + lines(events)


def as_document(header: bytes, events: Sequence[bytes]) -> bytes:
    trace = b'{"flowRun":{"a":"}]\\""},"steps":[{"b":[1,{}]}]}'
    return b'%b,\n"trace":%b,\n"events":[%b\n]}\n' % (header[:-1], trace, members(events, first=True))


def as_reformatted_document(header: bytes, events: Sequence[bytes]) -> bytes:
    """As a program leaves it that has read the document and written it again."""
    return encode(json.loads(header) | {"trace": {"events": [{}]}, "events": list(map(json.loads, events))})


def read(data: bytes, borders: Sequence[int] = ()) -> tuple[RunHeader, list[bytes]]:
    """What a reader finds in the data, which comes in pieces with these borders."""
    reader = RunFileReader()
    events: list[bytes] = []
    start = 0
    for border in [*sorted(borders), len(data)]:
        events += reader.feed(data[start:border])
        start = border
    events += reader.close()
    assert reader.header is not None
    return reader.header, events


@given(run_logs(), st.sampled_from([as_lines, as_document, as_reformatted_document]), st.data())
def test_header_and_events_are_read_as_they_were_written_at_any_borders(
    events: list[dict[str, Any]], write: Callable[[bytes, Sequence[bytes]], bytes], data: st.DataObject
) -> None:
    stored = as_stored(events)
    header = header_of(stored)
    file = write(encode(header), stored)
    borders = data.draw(st.lists(st.integers(0, len(file)), max_size=20))
    assert read(file, borders) == (header, stored)


@given(run_logs(), st.data())
def test_a_log_that_ended_adds_up_to_the_trace_that_its_events_fold_to(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    stored = as_stored(events)
    log = ImportedLog(header_of(stored), most_values=MOST_VALUES)
    steps: dict[int, StepTrace] = {}
    start = 0
    for border in [*sorted(data.draw(st.lists(st.integers(0, len(stored))))), len(stored)]:
        steps |= dict(log.take(stored[start:border]))
        assert log.head == border
        start = border
    trace = fold(map(decode_event, stored))
    if trace.flow_run.status in ("completed", "failed", "cancelled"):
        assert [encode(steps[position]) for position in sorted(steps)] == [
            encode(step) for step in trace.steps
        ]
        assert log.summary == msgspec.structs.replace(trace.flow_run, input=None, result=None)
        assert log.ended_at == trace.flow_run.completed_at
    else:
        with pytest.raises(
            RunFileError, match=f"has not ended in this file, whose last event is number {start}"
        ):
            _ = log.summary


def event(kind: str, seq: int, **fields: Any) -> dict[str, Any]:
    at = "2026-01-01T00:00:01.000Z"
    return {"eventType": kind, "executionId": RUN, "seq": seq, "at": at, **fields}


STARTED = event("run_started", 1, runId=RUN, flowId=FLOW, stepCount=1, triggerType="api", version=1)


def started(seq: int = 2, **fields: Any) -> dict[str, Any]:
    return event("step_started", seq, **{"stepId": "a", "name": "A", "stepIndex": 0, "attempt": 1, **fields})


def call(**fields: Any) -> dict[str, Any]:
    model_call = {"number": 1, "model": "echo", "truncated": False, **fields}
    return event("step_model_call", 3, stepId="a", attempt=1, modelCall=model_call)


def completed(seq: int = 2) -> dict[str, Any]:
    return event("flow_completed", seq, runId=RUN)


def raw(text: str) -> bytes:
    """A third event with this as its input."""
    return encode(event("step_input", 3, stepId="a", attempt=1, truncated=False, inputData="?")).replace(
        b'"?"', text.encode()
    )


HOSTILE: dict[str, tuple[list[dict[str, Any] | bytes], str]] = {
    "no start": ([completed(1)], "event 1 .* begins with `run_started`"),
    "another run": ([STARTED, completed() | {"executionId": FLOW}], "event 2 .* of run '01a216ae-3aa8"),
    "another flow": ([STARTED | {"flowId": RUN}], "not those of the header"),
    "an input in the middle": ([STARTED, event("run_input", 2), completed(3)], "event 3 .* `run_input` is"),
    "a result that is not kept": ([STARTED, completed() | {"result": {}}], "event 2 .* keeps no result"),
    "an output of no step": (
        [STARTED, started(), event("content_kept", 3, outputs=[{"stepId": "a"}])],
        "event 3 .* of step 'a', which has none",
    ),
    "a wrong type": ([STARTED, started(attempt="1")], "event 2 .* has a wrong type"),
    "a list": ([STARTED, b"[1]"], "event 2 .* does not begin with"),
    "a line break": ([STARTED, encode(started()).replace(b',"seq"', b',\n"seq"')], "on one line"),
    "two types": (
        [STARTED, encode(event("dreamt", 2)).replace(b"}", b',"eventType":"flow_completed"}')],
        "two members `eventType`",
    ),
    "no time": ([STARTED, started(at="yesterday")], "`at` is not a time"),
    "no time of an unknown event": ([STARTED, event("dreamt", 2) | {"at": "x"}], "`at` is not a time"),
    "a negative attempt": ([STARTED, started(attempt=-1)], "event 2 .* `attempt`"),
    "attempt 0": ([STARTED, started(attempt=0)], "event 2 .* `attempt`"),
    "a huge number": ([STARTED, started(inputSizeBytes=1 << 60)], "`inputSizeBytes` is not between"),
    "a negative index": ([STARTED, started(loopIndex=0, loopPath=[-1])], "`loopPath`"),
    "more loops than a flow has": ([STARTED, started(loopIndex=0, loopPath=[0] * 33)], "32 loops"),
    "an id that is none": ([STARTED, started(stepId="../a")], "`stepId`"),
    "an attempt once more": ([STARTED, started(), started(3)], "attempt 1 of step 'a' follows attempt 1"),
    "no amount": ([STARTED, started(), call(costUsd="NaN")], "`costUsd` is not an amount"),
    "negative tokens": (
        [STARTED, started(), call(tokens={"prompt": -1, "completion": 0, "total": -1})],
        "`prompt` is not between",
    ),
    "half a token": (
        [STARTED, started(), call(tokens={"prompt": 1.5, "completion": 1, "total": 2.5})],
        "`prompt` is not a whole number",
    ),
    "half a surrogate pair": ([STARTED, started(), raw(r'{"a":"\ud800"}')], "event 3 cannot be used"),
    "nesting": ([STARTED, started(), raw("[" * 100_000 + "]" * 100_000)], "nested too deeply"),
    "a number beyond floats": ([STARTED, started(), raw('{"a":1e999}')], "event 3 cannot be used"),
    "a weight": ([STARTED, started(), raw("[" + "1e300," * 600_000 + "1]")], "takes as long to be read"),
    "too many steps at once": (
        [STARTED, *(started(index + 2, loopIndex=index, loopPath=[index]) for index in range(10_001))],
        "more than 10,000 steps go on at once",
    ),
    "a summary without end": (
        [STARTED, started(), *(call(model="m" * 1000 + str(n)) | {"seq": n + 3} for n in range(1000))],
        "summary is larger than 1,048,576 bytes",
    ),
}


@pytest.mark.parametrize(("events", "told"), HOSTILE.values(), ids=HOSTILE.keys())
def test_an_event_that_cannot_be_is_refused_by_number(
    events: list[dict[str, Any] | bytes], told: str
) -> None:
    stored = [each if isinstance(each, bytes) else encode(each) for each in events]
    log = ImportedLog(header_of([encode(STARTED)]), most_values=MOST_VALUES)
    with pytest.raises(RunFileError, match=told):
        log.take(stored)


HEADER = encode(header_of([encode(STARTED)]))
BROKEN_FILES: dict[str, tuple[bytes, str]] = {
    "another format": (HEADER.replace(b"runglass-run", b"other"), "has format 'other'"),
    "a later version": (HEADER.replace(b'"formatVersion":1', b'"formatVersion":2'), "version 2"),
    "a path for an id": (HEADER.replace(RUN.encode(), b"../run"), "`runId` in the header is not a UUID"),
    "a slug with a line break": (HEADER.replace(b'"slug":"slug"', b'"slug":"a\\r\\nb"', 1), "`flow.slug`"),
    "a version below 0": (HEADER.replace(b'"version":1', b'"version":-1'), "`version` in the header"),
    "another capture mode": (HEADER.replace(b'"metadata_only"', b'"some"'), "capture"),
    "a document that breaks off": (
        as_document(HEADER, [encode(STARTED)])[:-3],
        "its last bracket is missing",
    ),
    "a document with more behind it": (as_document(HEADER, []) + b"{}", "more behind the end"),
    "a list": (b"[1]\n", "no JSON object"),
    "a list of members": (b'{["events"]}', "a \\[ where none can be"),
    "a value without a name": (b'{"a":1,"b","c":2}', "a value without a name"),
    "two colons": (b'{"a":1:2}', "a colon where none can be"),
    "events that are no list": (b'{"events":5,"a":1}', "`events` is no list"),
    "a comma without an event": (as_document(HEADER, [])[:-3] + b",", "a comma without an event"),
    "51 members": (b'{%b"x":1}' % (b'"":0,' * 50), "more than 50 members"),
    "a long name": (b'{"%b":1}' % (b"n" * 201), "longer than 200 bytes"),
    "a name without an end": (b'{"' + b"n" * 2_000_000, "longer than 200 bytes"),
    "a known member twice": (HEADER.replace(b"{", b'{"version":2,', 1), 'two members "version"'),
    "events twice": (as_document(HEADER, [])[:-2] + b',"events":[]}', 'two members "events"'),
    "a header behind the events": (
        as_document(HEADER, [])[:-2] + b',"sessionId":"%b"}' % SESSION.encode(),
        'member "sessionId" comes behind',
    ),
    "deep nesting": (b'{"trace":' + b"[" * 20_000, "nested more than 10,000 levels"),
}


@pytest.mark.parametrize(("data", "told"), BROKEN_FILES.values(), ids=BROKEN_FILES.keys())
def test_a_file_that_is_none_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(RunFileError, match=told):
        read(data, range(0, len(data), 1 << 20))


BEFORE_EVENTS = HEADER[:-1] + b',"events":['


@pytest.mark.parametrize(
    "before", [b'{"flow":"', HEADER + b"\n", BEFORE_EVENTS + b'"'], ids=["header", "line", "event"]
)
def test_a_header_or_line_without_an_end_is_refused(before: bytes) -> None:
    data = before + b"x" * (33 << 20)
    with pytest.raises(RunFileError, match="is larger than"):
        read(data, range(0, len(data), 8 << 20))


@pytest.mark.parametrize(
    "filling",
    [
        b'"' + b"a" * 8_000_000 + b'"',
        b'"' + b"\\n" * 4_000_000 + b'"',
        b"1" * 8_000_000,
        b" " * 8_000_000 + b"1",
    ],
    ids=["text", "escapes", "number", "blanks"],
)
def test_a_member_that_is_not_known_is_passed_over_and_not_held(filling: bytes) -> None:
    data = HEADER.replace(b"{", b'{"unknown":%b,' % filling, 1) + b"\n" + encode(STARTED)
    (header, events), most_bytes = most_memory(lambda: read(data, range(0, len(data), 1 << 18)))
    assert (header, events) == (read(HEADER)[0], [encode(STARTED)])
    assert most_bytes < 8 * (1 << 18)


def test_a_slug_that_could_end_a_header_is_in_no_name() -> None:
    assert file_name("json", RUN, 'a"\r\nX: y') == f"run-{RUN}.json"


SUMMARY = RunSummary(
    id=RUN,
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
    writer = PerfettoWriter(SUMMARY)
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


def test_a_conversation_with_tools_and_images_is_in_the_words_of_the_conventions() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, image, {"odd": 1}]},
        {"role": "assistant", "content": None, "toolCalls": [call]},
        {"role": "tool", "toolCallId": "c1", "content": "blue"},
    ]
    settings = {"temperature": 0.5, "seed": 7, "other": "x", "top_p": "no"}
    model_call = ModelCall(
        number=1,
        model="openai:gpt-x",
        request={"messages": messages, "settings": settings},
        response=messages[1],
        finish_reason="tool_calls",
    )
    said = dict(call_attributes(model_call, "openai"))
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
