"""What a request says is the same, wherever it is read, and what cannot be read costs that request alone."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from runglass.engine.capture.capture import Capture
from runglass.errors import APIError
from runglass.recording.content import captured
from runglass.recording.otlp import NotOtlp, decode
from runglass.recording.span_reader import SMALL_BYTES, SMALL_SPANS, SpanReader
from runglass.recording.span_worker import PIECE, Piece, link_to_run, own_run_id, pieces_of
from runglass.redact import Redactor
from tests.records import there
from tests.unit.recording import emitted
from tests.unit.recording.test_otlp import TRACE, as_json, pair, span, traces
from tests.waiting import until

CAPTURE = Capture("redacted")
SECRET = "sk-proj-" + "a1B2c3D4" * 6


@pytest.fixture
async def reader() -> AsyncIterator[SpanReader]:
    async with SpanReader(CAPTURE) as reader:
        yield reader


def body_of(*spans: Any, is_json: bool = False) -> bytes:
    data = traces(*spans)
    return json.dumps(as_json(data)).encode() if is_json else data.SerializeToString()


def here(body: bytes, *, is_json: bool = False) -> list[Piece]:
    return list(pieces_of(decode(body, "traces", is_json=is_json), flow=None, capture=CAPTURE))


async def read(reader: SpanReader, body: bytes, *, is_json: bool = False) -> list[Piece]:
    found = reader.pieces(body, "traces", is_json=is_json, flow=None, project_id=1)
    return [piece async for piece in found]


def told(found: list[Piece]) -> list[Any]:
    """All that is in the pieces, whichever it is in."""
    return [
        (each.head, each.state, each.step, each.trace_id, each.slug, each.is_harmless, each.redacted)
        for piece in found
        for each in piece.spans
    ]


@pytest.mark.parametrize("is_json", [False, True], ids=["protobuf", "JSON"])
@pytest.mark.parametrize("count", [1, SMALL_SPANS, SMALL_SPANS + 1, PIECE + 1])
async def test_a_request_is_read_alike_here_and_in_a_process(
    reader: SpanReader, count: int, is_json: bool
) -> None:
    spans = [span(number, attributes=[pair("n", int_value=number)]) for number in range(1, count + 1)]
    spans[-1] = span(1, attributes=[pair("key", string_value=SECRET)])
    body = body_of(*spans, is_json=is_json)
    found = await read(reader, body, is_json=is_json)
    assert told(found) == told(here(body, is_json=is_json))
    *others, last = [each for piece in found for each in piece.spans]
    assert all(each.is_harmless and each.redacted is None for each in others)
    assert SECRET.encode() in last.state
    redacted = there(last.redacted)
    assert SECRET.encode() not in redacted.state + redacted.step
    assert redacted.decoded() == await captured(last.decoded(), CAPTURE)
    assert bool(reader.idle) == (count > SMALL_SPANS)


@pytest.mark.parametrize("text", ["\x01" * 30_000, "a word " * 12_000], ids=["here", "process"])
async def test_a_secret_is_found_in_a_span_of_a_large_resource(reader: SpanReader, text: str) -> None:
    data = traces(span(1, attributes=[pair("key", string_value=SECRET)]))
    data.resource_spans[0].resource.attributes.append(pair("about", string_value=text))
    [piece] = await read(reader, data.SerializeToString())
    [each] = piece.spans
    assert not each.is_harmless


@pytest.mark.parametrize("is_json", [False, True], ids=["protobuf", "JSON"])
def test_a_large_resource_is_not_written_whole_with_each_of_its_spans(is_json: bool) -> None:
    data = traces(*map(span, range(1, 301)))
    large = [pair(f"large.{number}", string_value="a word " * 36_000) for number in range(2)]
    data.resource_spans[0].resource.attributes.extend([*large, pair("host.name", string_value="h1")])
    body = json.dumps(as_json(data)).encode() if is_json else data.SerializeToString()
    spans = [each for piece in here(body, is_json=is_json) for each in piece.spans]
    assert len(spans) == 300
    assert sum(len(each.state) for each in spans) < len(body)
    for each in spans:
        resource: Any = each.decoded().resource
        assert resource["host.name"] == "h1"
        assert resource["runglass.left_out"].startswith("2 attributes of 504,")


async def test_a_resource_with_a_secret_is_looked_through_once_for_all_its_spans() -> None:
    class Counting(Redactor):
        times = 0

        def redact(self, value: Any) -> Any:
            self.times += "about" in value
            return super().redact(value)

    capture = Capture("redacted", redactor=(counting := Counting()))
    data = traces(*map(span, range(1, SMALL_SPANS + 1)))
    data.resource_spans[0].resource.attributes.append(pair("about", string_value=SECRET))
    items = decode(data.SerializeToString(), "traces", is_json=False)
    [piece] = pieces_of(items, flow=None, capture=capture)
    assert counting.times == 1
    for each in piece.spans:
        assert there(each.redacted).decoded() == await captured(each.decoded(), CAPTURE)


@pytest.mark.parametrize("is_json", [False, True], ids=["protobuf", "JSON"])
def test_reading_goes_on_where_it_stopped(is_json: bool) -> None:
    spans = [span(number, **({"trace_id": b""} if number == 3 else {})) for number in range(1, 8)]
    body = body_of(*spans, is_json=is_json)
    for skip in range(9):
        rest = list(decode(body, "traces", is_json=is_json, skip=skip))
        assert rest == list(decode(body, "traces", is_json=is_json))[skip:]


@pytest.mark.parametrize(
    "fields",
    [
        {"events": [{"name": "x"}] * 20_000},
        {"links": [{"trace_id": TRACE}] * 20_000},
        {"name": "x" * 300_000},
    ],
)
def test_what_takes_much_memory_is_handed_out_a_little_at_a_time(fields: Any) -> None:
    found = here(body_of(*(span(number, **fields) for number in range(1, 7))))
    sizes = [sum(len(each.state) for each in piece.spans) for piece in found]
    assert len(sizes) > 2
    assert all(one <= 2 * other for one, other in pairwise(sorted(sizes)[1:]))


async def test_what_is_no_message_is_told_from_a_process_as_well(reader: SpanReader) -> None:
    with pytest.raises(NotOtlp, match="not an OTLP message"):
        await read(reader, b"\xff" * (SMALL_BYTES + 1))


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        ({"time_limit_ms": 1}, [span(number) for number in range(1, 10_000)]),
        ({"memory_limit_bytes": 400 << 20}, [span(name="x" * (64 << 20))]),
        # Each is six bytes of JSON, and the span is there with its step.
        ({}, [span(attributes=[pair("text", string_value="\x01" * (11 << 20))])]),
    ],
    ids=["time", "memory", "answer"],
)
async def test_a_request_that_takes_too_much_is_refused_for_good(
    limits: dict[str, int], sent: list[Any]
) -> None:
    async with SpanReader(CAPTURE, **limits) as reader:
        with pytest.raises(APIError, match="send it in parts") as refusal:
            await read(reader, body_of(*sent))
        assert refusal.value.code == "INVALID_REQUEST"


async def test_a_pattern_that_takes_too_long_in_a_process_is_told(caplog: pytest.LogCaptureFixture) -> None:
    capture = Capture("redacted", redactor=Redactor(extra_patterns=["(x+x+)+y"]))
    async with SpanReader(capture) as reader:
        [piece] = await read(reader, body_of(span(1, name="x" * (SMALL_BYTES + 1))))
    [each] = piece.spans
    assert there(each.redacted).head.name == "[redacted]"
    assert "'(x+x+)+y' takes too long" in caplog.text


async def test_a_process_that_is_killed_is_replaced_and_its_request_is_to_be_sent_again(
    reader: SpanReader,
) -> None:
    body = body_of(*(span(number) for number in range(1, 20_000)))
    task = asyncio.create_task(read(reader, body))
    await until(lambda: bool(reader.busy))
    [process] = reader.busy
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(APIError) as refusal:
        await task
    assert refusal.value.code == "UNAVAILABLE"
    assert len(told(await read(reader, body))) == 19_999


RUN = "01980000-0000-7000-8000-000000000001"
ROOT: dict[str, Any] = {"runglass.run.id": RUN, "runglass.trigger": "api", "gen_ai.workflow.name": "flow"}


@pytest.mark.parametrize(
    ("attributes", "scope", "run_id"),
    [
        (ROOT, "runglass", RUN),
        ({"runglass.run.id": RUN.upper()}, "runglass", RUN),
        ({}, "runglass", None),
        ({"runglass.run.id": "nonsense"}, "runglass", None),
        ({"runglass.run.id": 7}, "runglass", None),
        ({"runglass.run.id": [RUN]}, "runglass", None),
        ({"runglass.run.id": RUN}, "opentelemetry.instrumentation.openai_v2", None),
    ],
)
def test_a_span_of_ours_and_no_other_names_its_run(
    attributes: dict[str, Any], scope: str, run_id: str | None
) -> None:
    assert own_run_id(emitted.span(attributes, scope=scope)) == run_id


def test_the_caller_s_trace_keeps_the_run_as_one_step_without_usage_and_content() -> None:
    told = ROOT | {"runglass.cost_usd": "0.1", "gen_ai.usage.input_tokens": 7, "runglass.status": "failed"}
    whole = emitted.span(told | {"runglass.input": "{}", "runglass.output": "{}"}, ("exception", {}))
    assert link_to_run(whole) == whole._replace(attributes=ROOT | {"runglass.status": "failed"}, events=[])


def test_nothing_else_of_the_run_is_kept() -> None:
    assert link_to_run(emitted.span({"runglass.run.id": RUN, "runglass.kind": "step"})) is None
    assert link_to_run(emitted.span(ROOT, parent_id=None)) is None, "no span of another program called it"
