"""A step that is being recorded: what is known of it by now, and the span that this is sent as.

A span is sent when its step has ended, and before that where it takes long; the server makes one of all that
comes, in any order and however often. Knows nothing of how it is sent.

More than 300 lines: one state, and the one form in which it leaves the process.
"""

import logging
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypedDict, Unpack, get_args

import msgspec

from runglass import __version__
from runglass.log.span_state import SpanKind
from runglass.recorder.responses import Answer, read_response
from runglass.recorder.values import snapshot, type_name
from runglass.wire.run_api import CaptureMode

if TYPE_CHECKING:
    from runglass.recorder.delivery import Delivery

MODES: tuple[CaptureMode, ...] = get_args(CaptureMode)
"""What of the content is kept, from nothing to all of it."""
KINDS: tuple[SpanKind, ...] = get_args(SpanKind)
STEP_BYTES = 500
"""About what a step takes beside its content."""
CANCELLED = "CANCELLED"
_CANCELLED = ("CancelledError", "Cancelled")
"""Of asyncio, and of trio."""
LEFT_EARLY = "left early: the consumer did not read it to its end"
_MESSAGE_CHARS = _TRACEBACK_CHARS = 10_000
_FRAMES = 30
"""Of a traceback the calls that are kept, from where the exception was raised."""
_HERE = os.path.dirname(__file__)
INPUT, OUTPUT, TRACEBACK = "runglass.input", "runglass.output", "exception.stacktrace"
_WHOLE = b'{["'
"""What JSON of objects, lists and texts begins with."""

log = logging.getLogger("runglass")
reported: set[str] = set()

current: ContextVar["OpenStep | None"] = ContextVar("runglass_step", default=None)
"""The step in which the code runs that asks."""
attempts: ContextVar[dict[tuple[str, str], int] | None] = ContextVar("runglass_attempts", default=None)
"""In a block of attempts: how many steps have failed, by their parent and name."""


def report(what: str, detail: object = "") -> None:
    """Logs what must not be raised into the user's code, each kind once; `detail` may be an exception."""
    error = detail if isinstance(detail, Exception) else None
    kind = what if error is None else f"{what}: {type_name(error)}"
    if kind not in reported:
        reported.add(kind)
        log.warning("%s%s", what, "" if error or detail == "" else f": {detail}", exc_info=error)


def lower(one: CaptureMode, other: CaptureMode) -> CaptureMode:
    """The mode that keeps less."""
    return one if one == other else min(one, other, key=MODES.index)


class OpenStep:
    """A step that has begun, or is about to. In its block it is the current one, and it ends with the block.

    Its methods do not raise. One that is not recorded, as it has no `delivery`, does nothing.
    """

    __slots__ = (
        *("capture", "content", "delivery", "dropped", "end_ns", "error", "facts", "is_sent", "is_shared"),
        *("is_spooled", "kind", "name", "notes", "parent", "parent_id", "size", "span_id", "start_ns"),
        *("top", "trace_id"),
    )

    def __init__(
        self,
        name: str,
        kind: SpanKind = "code",
        *,
        delivery: "Delivery | None",
        parent: "OpenStep | None" = None,
        capture: CaptureMode = "full",
    ) -> None:
        self.name, self.kind = name, kind
        self.parent = parent
        self.span_id = os.urandom(8).hex()
        self.top: OpenStep
        if parent is None:
            self.trace_id, self.parent_id, self.top = os.urandom(16).hex(), "", self
            self.delivery, self.capture = delivery, capture
        else:
            self.trace_id, self.parent_id, self.top = parent.trace_id, parent.span_id, parent.top
            self.delivery = None if parent.delivery is None else delivery
            self.capture = capture if parent.capture == "full" else lower(capture, parent.capture)
        self.start_ns = self.end_ns = self.size = 0
        self.content: dict[str, bytes | str] = {}
        """What the capture mode decides about, by attribute: JSON, or a text as it is."""
        self.facts: dict[str, Any] = {}
        """All other attributes."""
        self.error: tuple[str, str] | None = None
        self.notes: tuple[str, ...] = ()
        self.is_sent = self.is_spooled = False
        self.is_shared = False
        """Of the first step of a trace here: whether another process may go on with it."""
        self.dropped = (0, 0)
        """Of the first step of a trace here: how many steps, and bytes of content, were not sent."""

    @property
    def id(self) -> str:
        """The id of its span."""
        return self.span_id

    @property
    def run(self) -> "OpenRun | None":
        """The run that it is part of, where that was begun in this process."""
        return self.top if isinstance(self.top, OpenRun) else None

    input = property(None, lambda self, value: self.take(INPUT, value), doc="What it was given: assign it.")
    output = property(None, lambda self, value: self.take(OUTPUT, value), doc="What came of it: assign it.")

    def add(
        self,
        *,
        tags: Iterable[str] | None = None,
        metadata: Mapping[str, object] | None = None,
        user: str | None = None,
        session: str | None = None,
    ) -> None:
        """Adds tags, metadata by name, and whose run it is, in which session."""
        try:
            if tags := [tags] if isinstance(tags, str) else [*(tags or ())]:
                known = self.facts.get("runglass.tags", ())
                self.facts["runglass.tags"] = sorted({*known, *map(str, tags)})
            if user is not None:
                self.facts["user.id"] = str(user)
            if session is not None:
                self.facts["session.id"] = str(session)
            for name, value in (metadata or {}).items():
                self.take(f"metadata.{name}", value)
        except Exception as error:
            report("what is said of a step could not be read", error)

    def note(self, text: str) -> None:
        """Adds a sentence that is shown with the step, whatever the capture mode."""
        if text not in self.notes:
            self.notes = (*self.notes, text)

    def take(self, attribute: str, value: object) -> None:
        """Has the value as content, as it is now; None is nothing."""
        if self.delivery is None or self.capture == "off" or value is None:
            return
        if type(value) is str and attribute not in (INPUT, OUTPUT):
            self.content[attribute] = value
            return
        try:
            data, is_cut = snapshot(value)
        except Exception as error:
            report("a value could not be read, and is not recorded", error)
            self.note(f"{attribute} could not be read: {type_name(value)}")
            return
        if is_cut:
            self.facts["runglass.truncated"] = True
        if attribute in (INPUT, OUTPUT):
            # What is no object is one of its own on the server, where a text begins as JSON does.
            self.content[attribute] = data if data[:1] in _WHOLE else b'{"value":%b}' % data
        elif data != b"null":
            # A text, as that of a UUID, is one without quotes.
            self.content[attribute] = msgspec.json.decode(data, type=str) if data[:1] == b'"' else data

    def model_call(self, **asked: "Unpack[CallOptions]") -> "OpenCall":
        """A call of a model in the step: a block, in which `response` is to be assigned."""
        return OpenCall(asked, delivery=self.delivery, parent=self, capture=self.capture)

    def start(self) -> Self:
        """Begins the step, without making it the current one."""
        self.start_ns = time.time_ns()
        if failures := (attempts.get() or {}).get((self.parent_id, self.name)):
            self.facts["runglass.attempt"] = failures + 1
        if self.delivery is not None:
            try:
                self.delivery.begin(self)
            except Exception as error:
                report("a step could not be recorded", error)
        return self

    def end(self, error: BaseException | None = None) -> None:
        """Ends the step, once; with the error, if there is one, which it does not raise."""
        if self.end_ns or self.delivery is None:
            return
        if isinstance(error, GeneratorExit):
            self.note(LEFT_EARLY)
        elif type(error).__name__ in _CANCELLED and not isinstance(error, Exception):
            self.error = CANCELLED, "the task was cancelled"
        elif error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.error = type(error).__qualname__, _message_of(error)
            if self.capture in ("full", "redacted"):
                self.take(TRACEBACK, _traceback_of(error))
        if self.error is not None and (counts := attempts.get()) is not None:
            key = self.parent_id, self.name
            counts[key] = counts.get(key, 0) + 1
        self.end_ns = max(time.time_ns(), self.start_ns)
        try:
            self.delivery.end(self)
        except Exception as failed:
            report("the end of a step could not be recorded", failed)

    def leave(self) -> None:
        """Makes the step around it the current one, unless another one has become that meanwhile."""
        # No token: a generator may end in another context than it began in.
        if current.get() is self:
            around = self.parent
            while around is not None and around.end_ns:
                around = around.parent
            current.set(around)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:
            # A durable one was waited for, and no block follows.
            self.end(error)
            raise
        current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.leave()
        self.end(error)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Has the step as the current one in a block that neither begins nor ends it."""
        before = current.get()
        current.set(self)
        try:
            yield
        finally:
            current.set(before)


class OpenRun(OpenStep):
    """A run that has begun: the first step of a trace in this process."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """The id of its trace, by which the server knows the run, too."""
        return self.trace_id

    @property
    def url(self) -> str:
        """The address of its page, once some of it was sent; empty where it is not recorded."""
        return "" if self.delivery is None else f"{self.delivery.address}/runs/{self.trace_id}"


class CallOptions(TypedDict, total=False):
    """What is asked of a model. `settings` are all else of the request."""

    model: str | None
    provider: str | None
    messages: object
    settings: Mapping[str, object] | None
    tools: object
    operation: Literal["chat", "embeddings"]


def require_known(options: Mapping[str, object], known: Mapping[str, object]) -> None:
    """Raises TypeError for an option that there is none of."""
    if unknown := options.keys() - known.keys():
        raise TypeError(f"there is no option {min(unknown)!r}; there are {', '.join(sorted(known))}")


class OpenCall(OpenStep):
    """A call of a model, to be a block or to be started and ended."""

    __slots__ = ()

    def __init__(
        self,
        asked: CallOptions,
        *,
        delivery: "Delivery | None",
        parent: OpenStep | None,
        capture: CaptureMode,
    ) -> None:
        require_known(asked, CallOptions.__annotations__)
        operation = asked.get("operation", "chat")
        kind: SpanKind = "llm" if operation == "chat" else "embedding"
        super().__init__(operation, kind, delivery=delivery, parent=parent, capture=capture)
        self.facts |= {"gen_ai.operation.name": operation, "gen_ai.request.model": "unknown"}
        try:
            if model := asked.get("model"):
                self.name = f"{operation} {model}"
                self.facts["gen_ai.request.model"] = model
            if (provider := asked.get("provider")) is not None:
                self.facts["gen_ai.provider.name"] = provider
            settings, messages = asked.get("settings"), asked.get("messages")
            is_one = isinstance(messages, str | Mapping)
            self.take("gen_ai.input.messages", [messages] if is_one else messages)
            self.take("gen_ai.tool.definitions", asked.get("tools") or None)
            self.take("llm.invocation_parameters", settings or None)
            if settings and settings.get("stream") is True:
                self.facts["gen_ai.request.stream"] = True
        except Exception as error:
            report("what is asked of a model could not be read", error)

    def first_token(self) -> None:
        """Says that the first part of the answer has come; only the first time counts."""
        waited_s = (time.time_ns() - self.start_ns) / 1e9
        self.facts.setdefault("gen_ai.response.time_to_first_chunk", waited_s)

    def set_response(self, response: object) -> None:
        """Records what a response of a provider's library says, or a dict of the same shape."""
        if self.delivery is None:
            return
        try:
            answer = read_response(response)
            if answer == Answer():
                self.note(f"nothing of the response is recorded: {type_name(response)} has an unknown shape")
            self.set_answer(answer)
        except Exception as error:
            report("a response could not be read, and is not recorded", error)
            self.note(f"the response could not be read: {type_name(response)}")

    def set_answer(self, answer: Answer) -> None:
        """Records an answer that was read already, as that of a stream."""
        if answer.model:
            self.facts["gen_ai.response.model"] = answer.model
        if answer.id:
            self.facts["gen_ai.response.id"] = answer.id
        if answer.finish_reason:
            self.facts["gen_ai.response.finish_reasons"] = [answer.finish_reason]
        if (usage := answer.usage) is not None:
            told = {
                "input_tokens": usage.input,
                "output_tokens": usage.output,
                "cache_read.input_tokens": usage.cached,
                "cache_write.input_tokens": usage.cache_write,
                "cache_creation.ephemeral_1h_input_tokens": usage.cache_write_1h,
                "reasoning.output_tokens": usage.reasoning,
            }
            self.facts |= {f"gen_ai.usage.{name}": count for name, count in told.items() if count is not None}
        parts: list[dict[str, Any]] = []
        if answer.reasoning:
            parts.append({"type": "reasoning", "content": answer.reasoning})
        if answer.text:
            parts.append({"type": "text", "content": answer.text})
        for call in answer.tool_calls:
            parts.append({"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments})
        if parts:
            self.take("gen_ai.output.messages", [{"role": "assistant", "parts": parts}])

    response = property(None, set_response, doc="The response of the provider's library: assign it.")


def _message_of(error: BaseException) -> str:
    try:
        return str(error)[:_MESSAGE_CHARS]
    except Exception as failed:
        report("the message of an exception could not be read", failed)
        return ""


def _traceback_of(error: BaseException) -> str | None:
    """Where it was raised, and what it came from, without the calls in between that only record."""
    try:
        told = traceback.TracebackException.from_exception(error, limit=-_FRAMES)
        each: traceback.TracebackException | None = told
        while each is not None:
            each.stack[:] = [frame for frame in each.stack if not frame.filename.startswith(_HERE)]
            each = each.__cause__ or each.__context__
        # What it ends with is nearest to what has happened.
        return "".join(told.format())[-_TRACEBACK_CHARS:].rstrip()
    except Exception as failed:
        report("the traceback of an exception could not be read", failed)
        return None


class SpanContent(NamedTuple):
    """What is sent, or written, of a step's content, and what is told of the rest."""

    content: Mapping[str, bytes | str]
    facts: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()
    message: str = ""


def resource_of(flow: str, sender_id: str, *, release: str | None, environment: str | None) -> dict[str, Any]:
    """What all spans of a sender share."""
    told = {
        "service.name": flow,
        "service.instance.id": sender_id,
        "service.version": release,
        "deployment.environment.name": environment,
    }
    return {"attributes": _attributes({name: value for name, value in told.items() if value is not None})}


def request_of(resource: dict[str, Any], spans: Sequence[dict[str, Any]]) -> bytes:
    """The body of a request with these spans."""
    scope = {"scope": {"name": "runglass.recorder", "version": __version__}, "spans": spans}
    return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})


def span_of(step: OpenStep, kept: SpanContent, lease_s: int, settle_s: int | None = None) -> dict[str, Any]:
    """The span of the step as it is now; with `settle_s` where nothing more of its trace is expected."""
    # The end is read first: what it follows is there then.
    end_ns, facts, notes = step.end_ns, dict(step.facts), (*step.notes, *kept.notes)
    if "gen_ai.operation.name" not in facts:
        facts["runglass.kind"] = step.kind
    if any(step.dropped):
        steps, size = step.dropped
        facts |= {"runglass.dropped_steps": steps, "runglass.dropped_bytes": size}
    if notes:
        facts["runglass.notes"] = list(notes)
    span = _begun(step)
    if end_ns:
        span["endTimeUnixNano"] = str(end_ns)
        if step.error is None:
            span["status"] = {"code": 1}
        else:
            facts["error.type"] = step.error[0]
            span["status"] = {"code": 2, "message": _whole(kept.message)}
        if settle_s is not None:
            facts["runglass.settle_s"] = settle_s
    else:
        facts["runglass.lease_s"] = lease_s
    span["attributes"] = _attributes({**facts, **kept.facts, **kept.content})
    return span


def heartbeat_of(step: OpenStep, lease_s: int) -> dict[str, Any]:
    """What says that the step goes on, and nothing that was not said."""
    facts = {"runglass.lease_s": lease_s, "runglass.kind": step.kind}
    return _begun(step) | {"attributes": _attributes(facts)}


def _begun(step: OpenStep) -> dict[str, Any]:
    return {
        "traceId": step.trace_id,
        "spanId": step.span_id,
        "parentSpanId": step.parent_id,
        "name": _whole(step.name),
        "kind": 1,
        "startTimeUnixNano": str(step.start_ns),
    }


def _attributes(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in facts.items()]


def _whole(text: str) -> str:
    """The text without halves of characters, which no JSON may have."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _value(value: Any) -> dict[str, Any]:
    match value:
        case str():
            return {"stringValue": _whole(value)}
        case bytes() if value[:1] in _WHOLE:
            return {"stringValue": value.decode()}
        case bytes():
            return _value(msgspec.json.decode(value))
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list() | tuple():
            return {"arrayValue": {"values": [_value(each) for each in value]}}
    return {"stringValue": f"<{type_name(value)}>"}
