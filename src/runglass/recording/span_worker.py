"""What a request says, read span by span into the bytes that are written of it.

Pure, and the same in the server, which reads small requests, as in `span_process`, which reads all others.
Of a request one piece at a time is in memory as objects.
"""

import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate
from typing import Any

import msgspec
from msgspec.structs import replace

from runglass.engine.capture.capture import Capture
from runglass.log.fold import DAMAGE, recorded_step
from runglass.log.span_state import SpanState
from runglass.recording.content import CONTENT, captured_at_once
from runglass.recording.dialects import interpret, interpret_log
from runglass.recording.otlp import Signal
from runglass.recording.received import ReceivedLog, ReceivedSpan, Refused
from runglass.redact import Rules
from runglass.support.lazy_json import json_bytes

PIECE, PIECE_BYTES = 2000, 1 << 20
"""So many spans, of about so many bytes, are read, and recorded, at a time."""
ANSWER_BYTES = 8 << 20
"""About so much of a request the process reads at a time; its body is sent once more for the next pieces."""
LOOKED_AT_ONCE = 32
"""Spans that are looked through for secrets together: mostly there are none in all of them."""
LOOKED_AT_BYTES = 60 * 1024
"""A larger span is looked through value by value, when it is known what is kept of it."""
RESOURCE_BYTES = 32 * 1024
"""What is kept of a resource. It is written with each of its spans."""
UNUSABLE = "it has a value that cannot be kept as JSON"
OWN_SCOPE, RUN_ID = "runglass", "runglass.run.id"
"""The scope of the spans of a run of ours, and the attribute of each with the id of the run."""
STARTED_BY_CALLER = "runglass.trigger"
"""Of the span of a run as a whole, and of no other."""
COUNTED_ELSEWHERE = ("gen_ai.usage.", "runglass.cost", "runglass.input", "runglass.output")

_ADDRESS = b'{"stepId":"","attempt":1,'
_NO_CONTENT: dict[str, Any] = dict.fromkeys((*CONTENT, "resource"))
_state_of = msgspec.json.Decoder(SpanState).decode


Received = ReceivedSpan | ReceivedLog


class EncodedSpan(msgspec.Struct, array_like=True, gc=False):
    """What is known of a span, as it is written: `state` as JSON, and `step`, its row behind the address.

    `head` is the state without its content, for all that has to be known of it in memory.
    """

    head: SpanState
    state: bytes
    step: bytes

    def decoded(self) -> SpanState:
        return _state_of(self.state)


def encoded_span(state: SpanState) -> EncodedSpan:
    """Raises what encoding raises for values that JSON has not."""
    calls = tuple([replace(call, request=None, response=None) for call in state.model_calls])
    step = msgspec.json.encode(recorded_step(state))[len(_ADDRESS) :]
    return EncodedSpan(replace(state, **_NO_CONTENT, model_calls=calls), msgspec.json.encode(state), step)


class ReadSpan(EncodedSpan):
    """A span of a request. `is_harmless` says that its content has no secrets, `redacted` is it without them.

    `own_run_id` is the run of a Runglass that it tells of, and `link` what is recorded of it where that run
    was executed here.
    """

    trace_id: str
    slug: str
    is_harmless: bool = False
    redacted: EncodedSpan | None = None
    own_run_id: str | None = None
    link: "ReadSpan | None" = None


class Piece(msgspec.Struct, array_like=True):
    """Some spans of a request, `items` of them with those that are refused, which are counted by the reason.

    `errors` are those that are no fault of the sender's, for the log.
    """

    items: int = 0
    spans: list[ReadSpan] = []
    refused: dict[str, int] = {}
    errors: list[str] = []


def pieces_of(items: Iterable[Received | Refused], *, flow: str | None, capture: Capture) -> Iterator[Piece]:
    """What was received, in pieces; `flow` is the slug that the request asks for.

    `capture` is that of runs with the mode `redacted`.
    """
    piece, size = Piece(), 0
    read: list[tuple[ReadSpan, bytes | None]] = []
    # By the id of each resource, with what has it, or another one could have the same id.
    resources: dict[int, tuple[Any, msgspec.Raw, bool]] = {}
    for item in items:
        piece.items += 1
        if isinstance(item, Refused):
            piece.refused[item.reason] = piece.refused.get(item.reason, 0) + item.times
            continue
        try:
            if (known := resources.get(id(item.resource))) is None:
                data = _bounded(item.resource)
                known = item.resource, msgspec.Raw(data), not capture.redactor.may_hold_secrets(data)
                resources[id(item.resource)] = known
            _, resource, is_harmless = known
            span, content = _read(item, flow, resource)
            if isinstance(item, ReceivedSpan) and (run_id := own_run_id(item)) is not None:
                span.own_run_id, link = run_id, link_to_run(item)
                span.link = None if link is None else _read(link, flow, resource)[0]
        except (*DAMAGE, AttributeError, AssertionError) as error:
            # Whatever is odd about a span, or wrong in its reading, costs no other one.
            piece.refused[UNUSABLE] = piece.refused.get(UNUSABLE, 0) + 1
            if not isinstance(error, UnicodeError | RecursionError):
                piece.errors.append(repr(error))
            continue
        piece.spans.append(span)
        size += len(span.state) + len(span.step)
        if len(span.state) <= LOOKED_AT_BYTES:
            read.append((span, content if is_harmless else None))
        if size >= PIECE_BYTES or piece.items >= PIECE:
            _look_through(read, capture)
            yield piece
            piece, size, read, resources = Piece(), 0, [], {}
    if piece.items:
        _look_through(read, capture)
        yield piece


def _bounded(resource: dict[str, Any]) -> bytes:
    """The resource as JSON. Of a large one the largest attributes are left out, for each span repeats it."""
    data = msgspec.json.encode(resource)
    if len(data) <= RESOURCE_BYTES:
        return data
    sizes = {name: len(name) + len(msgspec.json.encode(value)) for name, value in resource.items()}
    by_size = sorted(sizes, key=sizes.__getitem__)
    total = accumulate(sizes[name] for name in by_size)
    kept = {
        name: resource[name] for name, so_far in zip(by_size, total, strict=True) if so_far <= RESOURCE_BYTES
    }
    left_out = f"{len(resource) - len(kept)} attributes of {len(data):,} bytes in all"
    return msgspec.json.encode(kept | {"runglass.left_out": left_out})


def _read(item: Received, flow: str | None, resource: msgspec.Raw) -> tuple[ReadSpan, bytes]:
    """The span, and its content in one piece."""
    state = interpret(item) if isinstance(item, ReceivedSpan) else interpret_log(item)
    raw: dict[str, Any] = {}
    for name in CONTENT:
        if (value := json_bytes(state, name)) is not None:
            raw[name] = value
    values = list(raw.values())
    names = [state.name, state.entry_name, *state.tags, *state.notes]
    if state.model_calls:
        [call] = state.model_calls
        asked: Any = json_bytes(call, "request")
        answered: Any = json_bytes(call, "response")
        raw["model_calls"] = (replace(call, request=asked, response=answered),)
        values += [value for value in (asked, answered) if value is not None]
        names += [call.finish_reason, call.request_id, call.error_code]
    values.append(msgspec.json.encode(names))
    if "input" in raw and state.input_size_bytes is None:
        raw["input_size_bytes"] = len(raw["input"])
    if "output" in raw and state.output_size_bytes is None:
        raw["output_size_bytes"] = len(raw["output"])
    if item.resource:
        raw["resource"] = resource
    encoded = encoded_span(replace(state, **raw))
    span = ReadSpan(encoded.head, encoded.state, encoded.step, item.trace_id, slug_of(flow, item))
    return span, b"[%b]" % b",".join(values)


# Spans of our own that come back. A run that was executed here is there already: where another program called
# the flow, its trace has the run as one step, which points to the run and tells no usage.


def own_run_id(span: ReceivedSpan) -> str | None:
    """The id of the run that a Runglass tells of with this span, None for a span of any other program.

    Whoever asks finds out whether the project has executed that run.
    """
    if span.scope != OWN_SCOPE or not isinstance(run_id := span.attributes.get(RUN_ID), str):
        return None
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        return None


def link_to_run(span: ReceivedSpan) -> ReceivedSpan | None:
    """What the trace of a caller has of a run of ours: its span, without usage and content.

    None for a span inside of the run, and for a run that no span called.
    """
    if span.parent_id is None or STARTED_BY_CALLER not in span.attributes:
        return None
    kept = {name: value for name, value in span.attributes.items() if not name.startswith(COUNTED_ELSEWHERE)}
    return span._replace(attributes=kept, events=[])


def slug_of(header: str | None, item: Received) -> str:
    """The slug of the flow that a trace is for: of the header, the span, its resource, or its service."""
    named = (
        header
        or item.attributes.get("runglass.flow")
        or item.resource.get("runglass.flow")
        or item.resource.get("service.name")
    )
    slug = re.sub("[^a-z0-9]+", "-", str(named or "").lower()).strip("-")[:128].strip("-")
    return slug or "otel"


def _look_through(read: list[tuple[ReadSpan, bytes | None]], capture: Capture) -> None:
    """Says of these spans whether they are harmless, and takes secrets out of those that are not.

    Each comes with its content, None for one whose resource is not harmless.
    """
    may_hold_secrets = capture.redactor.may_hold_secrets
    resources: dict[bytes, Any] = {}
    for first in range(0, len(read), LOOKED_AT_ONCE):
        some = read[first : first + LOOKED_AT_ONCE]
        are_harmless = not may_hold_secrets(b"".join([content for _, content in some if content]))
        for span, content in some:
            span.is_harmless = content is not None and (are_harmless or not may_hold_secrets(content))
            # Where that fails it is tried again for the run, and this span alone is refused.
            with suppress(*DAMAGE):
                if not span.is_harmless:
                    span.redacted = encoded_span(captured_at_once(span.decoded(), capture, resources))


class ReadRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request to be read, but for its first spans, `skip` of them."""

    body: bytes
    signal: Signal
    is_json: bool
    flow: str | None
    rules: Rules
    limit_bytes: int
    skip: int


class ReadReply(msgspec.Struct, frozen=True, array_like=True):
    """Pieces, each a message, which are the last ones if `is_all`; or why there are none.

    `late` are patterns that have taken too long.
    """

    pieces: list[bytes] = []
    late: list[str] = []
    is_all: bool = False
    no_otlp: str | None = None
