"""Spans and log records out of the bytes of a request: all that is good, whatever is beside it."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from runglass.recording.otlp import (
    FIELDS_OF_VALUE,
    JSON_WEIGHT,
    MOST_SPANS,
    MOST_VALUES,
    NotOtlp,
    Received,
    Signal,
)
from runglass.recording.received import ReceivedLog, ReceivedSpan, Refused, SpanEvent, SpanLink
from tests.examples import examples
from tests.otlp_standard import check, items_of

TRACE, SPAN, PARENT = bytes(range(16)), bytes(range(8)), bytes(range(8, 16))


def pair(key: str, **value: Any) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(**value))


def span(number: int = 1, **fields: Any) -> Span:
    return Span(**{"trace_id": TRACE, "span_id": number.to_bytes(8), "name": "chat"} | fields)


def traces(*spans: Span) -> TracesData:
    data = TracesData()
    [resource] = [data.resource_spans.add()]
    resource.resource.attributes.append(pair("service.name", string_value="shop"))
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "openai", "1.2"
    scope.spans.extend(spans)
    return data


def logs(**fields: Any) -> LogsData:
    data = LogsData()
    scope = data.resource_logs.add().scope_logs.add()
    scope.scope.name = "events"
    scope.log_records.add(**fields)
    return data


def read(data: Any, signal: Signal = "traces") -> list[Received]:
    return items_of(data.SerializeToString(), signal, is_json=False)


def as_json(data: Any) -> dict[str, Any]:
    """OTLP/JSON: that of protobuf, with hexadecimal ids."""

    def with_hex(members: dict[str, Any]) -> dict[str, Any]:
        ids = {name: value for name, value in members.items() if name.endswith("Id")}
        return members | {name: base64.b64decode(value).hex() for name, value in ids.items()}

    made: dict[str, Any] = json.loads(json_format.MessageToJson(data), object_hook=with_hex)
    return made


def read_json(data: Any, signal: Signal = "traces") -> list[Received]:
    return items_of(json.dumps(data).encode(), signal, is_json=True)


def json_spans(*spans: dict[str, Any]) -> list[Received]:
    ids = {"traceId": TRACE.hex(), "spanId": SPAN.hex()}
    return read_json({"resourceSpans": [{"scopeSpans": [{"spans": [ids | fields for fields in spans]}]}]})


EVERYTHING = span(
    parent_span_id=PARENT,
    name="chat gpt-4o – é",
    kind=3,
    start_time_unix_nano=1_700_000_000_000_000_001,
    end_time_unix_nano=(1 << 64) - 1,
    status={"code": 2, "message": "it broke"},
    attributes=[
        pair("text", string_value="a"),
        pair("empty", string_value=""),
        pair("whole", int_value=-(1 << 63)),
        pair("yes", bool_value=True),
        pair("no", bool_value=False),
        pair("half", double_value=0.5),
        pair("nan", double_value=float("nan")),
        pair("most", double_value=float("inf")),
        pair("least", double_value=float("-inf")),
        pair("bytes", bytes_value=b"\x00\xff"),
        pair("list", array_value={"values": [AnyValue(int_value=1), AnyValue(), AnyValue(string_value="b")]}),
        pair("object", kvlist_value={"values": [pair("a", int_value=1), pair("b", string_value="c")]}),
        pair("nothing"),
        pair("twice", int_value=1),
        pair("twice", int_value=2),
    ],
    events=[{"time_unix_nano": 5, "name": "choice", "attributes": [pair("index", int_value=0)]}],
    links=[{"trace_id": TRACE, "span_id": SPAN, "attributes": [pair("why", string_value="x")]}],
    dropped_attributes_count=1,
    dropped_events_count=2,
    dropped_links_count=3,
)
READ = ReceivedSpan(
    trace_id=TRACE.hex(),
    span_id="0000000000000001",
    parent_id=PARENT.hex(),
    name="chat gpt-4o – é",
    kind=3,
    start_ns=1_700_000_000_000_000_001,
    end_ns=(1 << 64) - 1,
    status=2,
    status_message="it broke",
    attributes={
        "text": "a",
        "empty": "",
        "whole": -(1 << 63),
        "yes": True,
        "no": False,
        "half": 0.5,
        "nan": "NaN",
        "most": "Infinity",
        "least": "-Infinity",
        "bytes": "AP8=",
        "list": [1, None, "b"],
        "object": {"a": 1, "b": "c"},
        "nothing": None,
        "twice": 2,
    },
    events=[SpanEvent(5, "choice", {"index": 0})],
    links=[SpanLink(TRACE.hex(), SPAN.hex(), {"why": "x"})],
    scope="openai",
    scope_version="1.2",
    resource={"service.name": "shop"},
    dropped=6,
)


def test_a_span_is_read_whole_in_both_encodings() -> None:
    data = traces(EVERYTHING)
    assert read(data) == [READ]
    assert read_json(as_json(data)) == [READ]


def test_a_log_record_is_read_whole_in_both_encodings() -> None:
    data = logs(
        trace_id=TRACE,
        span_id=SPAN,
        observed_time_unix_nano=7,
        severity_number=9,
        event_name="gen_ai.choice",
        body={"kvlist_value": {"values": [pair("content", string_value="Hi")]}},
        attributes=[pair("a", int_value=1)],
    )
    expected = ReceivedLog(
        *(TRACE.hex(), SPAN.hex(), 7, "gen_ai.choice", {"content": "Hi"}, 9, {"a": 1}, "events", "", {})
    )
    assert read(data, "logs") == [expected]
    assert read_json(as_json(data), "logs") == [expected]
    # One of former days has its name among its attributes.
    old = logs(
        trace_id=TRACE, span_id=SPAN, time_unix_nano=1, attributes=[pair("event.name", string_value="n")]
    )
    for found in (*read(old, "logs"), *read_json(as_json(old), "logs")):
        assert isinstance(found, ReceivedLog)
        assert (found.name, found.at_ns) == ("n", 1)


def frame(tag: int, content: bytes) -> bytes:
    size, encoded = len(content), b""
    while size > 0x7F:
        encoded += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([tag]) + encoded + bytes([size]) + content


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b""}, "trace id"),
        ({"trace_id": bytes(16)}, "trace id"),
        ({"trace_id": TRACE[:15]}, "trace id"),
        ({"span_id": b""}, "span id"),
        ({"span_id": bytes(8)}, "span id"),
        ({"span_id": TRACE}, "span id"),
        ({"parent_span_id": TRACE}, "parent span id"),
    ],
)
def test_a_span_with_a_bad_id_is_refused(fields: dict[str, bytes], reason: str) -> None:
    data = traces(span(1), span(2, **fields), span(3))
    for found in (read(data), read_json(as_json(data))):
        assert [type(each) for each in found] == [ReceivedSpan, Refused, ReceivedSpan]
        assert isinstance(found[1], Refused)
        assert reason in found[1].reason


def test_ids_of_json_are_hexadecimal_in_either_case_and_never_base64() -> None:
    in_base64 = base64.b64encode(TRACE).decode()
    found, refused = json_spans({"traceId": TRACE.hex().upper()}, {"traceId": in_base64})
    assert isinstance(found, ReceivedSpan)
    assert found.trace_id == TRACE.hex()
    assert isinstance(refused, Refused)
    assert "hexadecimal" in refused.reason


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": 3}, {"kind": 3}),
        ({"parentSpanId": "0" * 16}, {"parent_id": None}),
        ({"kind": "SPAN_KIND_CLIENT"}, {"kind": 3}),
        ({"kind": "CLIENT"}, {"kind": 3}),
        ({"kind": "SPAN_KIND_OF_TOMORROW"}, {"kind": 0}),
        ({"status": {"code": "STATUS_CODE_ERROR", "message": "m"}}, {"status": 2, "status_message": "m"}),
        ({"startTimeUnixNano": "1700000000000000001"}, {"start_ns": 1_700_000_000_000_000_001}),
        ({"startTimeUnixNano": 1_700_000_000_000_000_001}, {"start_ns": 1_700_000_000_000_000_001}),
        ({"startTimeUnixNano": 1.5e18}, {"start_ns": 1_500_000_000_000_000_000}),
        ({"name": None, "events": None, "attributes": None, "status": None}, {"name": "", "events": []}),
        ({"future": {"field": 1}}, {}),
        ({"attributes": {"a": 1, "b": {"c": [True]}}}, {"attributes": {"a": 1, "b": {"c": [True]}}}),
        ({"attributes": {"a": {"stringValue": "x"}}}, {"attributes": {"a": "x"}}),
        *(
            ({"attributes": [{"key": "a", "value": value}]}, {"attributes": {"a": expected}})
            for value, expected in (
                ({"intValue": "9007199254740993"}, 9007199254740993),
                ({"intValue": 5}, 5),
                ({"doubleValue": 1}, 1.0),
                ({"arrayValue": {"values": [{"intValue": 1}]}}, [1]),
                ({"arrayValue": {}}, []),
                (None, None),
                ("plain", "plain"),
            )
        ),
    ],
)
def test_json_is_read_leniently(given: dict[str, Any], expected: dict[str, Any]) -> None:
    [found] = json_spans(given)
    assert isinstance(found, ReceivedSpan), found
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_number_beyond_all_costs_no_other_span() -> None:
    bad = {"attributes": [{"key": "a", "value": {"doubleValue": 10**400}}]}
    refused, good = json_spans(bad, {})
    assert isinstance(refused, Refused)
    assert isinstance(good, ReceivedSpan)


@pytest.mark.parametrize(
    ("resource", "is_refused"),
    [
        ({"scope_spans": [{"spans": [{"name": "a"}]}]}, True),
        ({"instrumentationLibrarySpans": [{"spans": [{"name": "a"}]}]}, True),
        ({"scopeLogs": [{"log_records": [{"body": {}}]}]}, True),
        ({"scopeSpans": [{"scope": {}, "spans": []}]}, False),
        ({"resource": {"attributes": {"a": '"spans":[{'}}}, False),
    ],
)
def test_spans_of_json_that_are_elsewhere_are_not_taken_for_none(
    resource: dict[str, Any], is_refused: bool
) -> None:
    if is_refused:
        with pytest.raises(NotOtlp, match="scopeSpans"):
            read_json({"resourceSpans": [resource]})
    else:
        assert read_json({"resourceSpans": [resource]}) == []


def test_half_a_character_costs_no_more_than_itself() -> None:
    [found] = json_spans({"name": "cut \ud83d off"})
    assert isinstance(found, ReceivedSpan)
    assert found.name == "cut � off"


def deep(levels: int) -> Any:
    value: Any = {"intValue": 1}
    for _ in range(levels):
        value = {"arrayValue": {"values": [value]}}
    return value


@pytest.mark.parametrize(
    "given",
    [
        {"name": 5},
        {"startTimeUnixNano": -1},
        {"endTimeUnixNano": str(1 << 64)},
        {"startTimeUnixNano": "yesterday"},
        {"attributes": "a"},
        {"attributes": [{"key": 1}]},
        {"attributes": [{"key": "a", "value": {"intValue": "x"}}]},
        {"attributes": [{"key": "a", "value": deep(70)}]},
        {"attributes": {"a": json.loads("[" * 70 + "]" * 70)}},
        {"events": [1]},
        {"links": {"a": 1}},
        {"status": "STATUS_CODE_OK"},
    ],
    ids=str,
)
def test_a_span_of_json_that_cannot_be_read_is_refused(given: dict[str, Any]) -> None:
    [found] = json_spans(given)
    assert isinstance(found, Refused)
    assert found.reason


def test_a_span_of_protobuf_that_is_nested_too_deeply_or_has_a_name_that_is_no_text_is_refused() -> None:
    value = AnyValue(int_value=1).SerializeToString()
    for _ in range(200):
        value = frame(0x2A, frame(0x0A, value))
    good = span(1).SerializeToString()
    deep_one = good + frame(0x4A, frame(0x0A, b"a") + frame(0x12, value))
    spans = (good, deep_one, good.replace(b"chat", b"\xff\xfexx"), good)
    body = frame(0x0A, frame(0x12, b"".join(frame(0x12, each) for each in spans)))
    found = items_of(body, "traces", is_json=False)
    assert [type(each) for each in found] == [ReceivedSpan, Refused, Refused, ReceivedSpan]


def test_fields_may_come_in_any_order_and_in_parts() -> None:
    """As protobuf has it: the resource behind its spans, and in two parts."""
    spans = frame(0x12, frame(0x12, span().SerializeToString()) + frame(0x0A, frame(0x0A, b"openai")))
    parts = [
        frame(0x0A, frame(0x0A, pair(name, int_value=1).SerializeToString())) for name in ("first", "second")
    ]
    [found] = items_of(frame(0x0A, spans + b"".join(parts)), "traces", is_json=False)
    assert isinstance(found, ReceivedSpan)
    assert found.resource == {"first": 1, "second": 1}
    assert found.scope == "openai"


HEAVY = {
    "attributes": b"\x4a\x00" * (MOST_VALUES + 1),
    "events": b"\x5a\x00" * (MOST_VALUES + 1),
    "numbers": b"\x30\x01" * (FIELDS_OF_VALUE * MOST_VALUES),
    "attributes of an event": frame(0x5A, b"\x1a\x00" * MOST_VALUES),
    "a list": frame(0x4A, frame(0x12, frame(0x2A, b"\x0a\x00" * MOST_VALUES))),
    "an object in a list": frame(
        0x4A, frame(0x12, frame(0x2A, frame(0x0A, frame(0x32, b"\x0a\x00" * MOST_VALUES))))
    ),
}


@pytest.mark.parametrize("what", HEAVY)
def test_a_span_whose_values_would_fill_the_memory_is_refused(what: str) -> None:
    heavy = span(2).SerializeToString() + HEAVY[what]
    body = frame(0x0A, frame(0x12, frame(0x12, span(1).SerializeToString()) + frame(0x12, heavy)))
    good, refused = items_of(body, "traces", is_json=False)
    assert isinstance(good, ReceivedSpan)
    assert isinstance(refused, Refused)
    assert f"{MOST_VALUES:,} values" in refused.reason


def test_a_resource_whose_values_would_fill_the_memory_costs_its_spans() -> None:
    resource = frame(0x0A, b"\x0a\x00" * (MOST_VALUES + 1))
    body = frame(0x0A, resource + frame(0x12, frame(0x12, span().SerializeToString())))
    assert [type(each) for each in items_of(body, "traces", is_json=False)] == [Refused]


def test_a_span_of_json_whose_values_would_fill_the_memory_is_refused() -> None:
    [refused] = json_spans({"attributes": {"a": [[]] * (JSON_WEIGHT * MOST_VALUES * 3 // 4)}})
    assert isinstance(refused, Refused)
    assert f"{MOST_VALUES:,} values" in refused.reason


MANY: dict[str, Callable[[], bytes]] = {
    "spans": lambda: frame(0x0A, frame(0x12, b"\x12\x00" * MOST_SPANS)),
    "scopes": lambda: frame(0x0A, b"\x12\x00" * (MOST_SPANS + 1)),
    "resources": lambda: b"\x0a\x00" * (MOST_SPANS + 1),
    "JSON": lambda: (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * (JSON_WEIGHT * MOST_SPANS + 1) + b"{}]}]}]}"
    ),
}


@pytest.mark.parametrize("of", MANY)
def test_a_request_of_too_many_spans_is_refused_as_a_whole(of: str) -> None:
    with pytest.raises(NotOtlp, match="in parts"):
        items_of(MANY[of](), "traces", is_json=of == "JSON")


def bodies() -> st.SearchStrategy[bytes]:
    """Bytes without a meaning, and good requests of which a part is missing, another one, or doubled."""
    binary, data = traces(EVERYTHING, span(2)), logs(trace_id=TRACE, span_id=SPAN, body={"string_value": "x"})
    whole = st.sampled_from(
        [
            *(each.SerializeToString() for each in (binary, data)),
            *(json.dumps(as_json(each)).encode() for each in (binary, data)),
        ]
    )
    harmed = st.builds(
        lambda body, start, size, other: body[:start] + other + body[start + size :],
        *(whole, st.integers(0, 700), st.integers(0, 40), st.binary(max_size=40)),
    )
    doubled = st.builds(
        lambda body, start, end: body + body[start:end], whole, st.integers(0, 300), st.integers(0, 700)
    )
    return st.one_of(st.binary(max_size=400), harmed, doubled)


@given(body=bodies())
@examples(100, of=2_000)
def test_whatever_bytes_come_are_read_as_the_library_reads_them_or_refused(body: bytes) -> None:
    check(body)
