"""What is compared of an attempt of a stored run, and whether two attempts differ.

An AttemptDigest has hashes in place of content: two long traces fit into memory so, and the StoredAttempt is
read again only where content differs. Content that one run kept and the other did not is no difference.
Of model calls it is what models were asked, and what they answered; tokens, cost and the model that answered
are compared as the attempt has them; times and ids always differ. What differs in an attempt is for
`attempt_diff.py`. No I/O.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from runglass.log.trace import TokenBreakdown

NOT_KEPT = (b"", b"null")


class StoredCall(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """What is compared of a model call in a StepTrace."""

    model: str
    provider: str | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    request: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


class CallsDigest(NamedTuple):
    """What models were asked, or what they answered, as hashes: in short, and all of it, None if not kept."""

    about: int
    content: int | None


def digests_of(calls: Sequence[StoredCall]) -> tuple[CallsDigest | None, CallsDigest | None]:
    """Of the requests and of the responses; None without calls, as of logs from before calls were told."""
    if not calls:
        return None, None
    requests = tuple(bytes(call.request) for call in calls)
    responses = tuple(bytes(call.response) for call in calls)
    is_kept = not any(request in NOT_KEPT for request in requests)
    asked = hash(tuple((call.model, call.provider) for call in calls))
    ended = hash(tuple((call.finish_reason, call.error_code) for call in calls))
    return (
        CallsDigest(asked, hash(requests) if is_kept else None),
        CallsDigest(ended, hash(responses) if is_kept else None),
    )


def calls_differ(a: CallsDigest | None, b: CallsDigest | None) -> bool:
    """Whether models were asked, or have answered, otherwise, as far as both are known."""
    if a is None or b is None:
        return False
    return a.about != b.about or (None not in (a.content, b.content) and a.content != b.content)


def requests_json(calls: Sequence[StoredCall], *, with_content: bool) -> bytes:
    """What models were asked, as a list."""
    return msgspec.json.encode(
        [
            _known(model=call.model, provider=call.provider, request=call.request if with_content else None)
            for call in calls
        ]
    )


def responses_json(calls: Sequence[StoredCall], *, with_content: bool) -> bytes:
    """What models answered, as a list."""
    return msgspec.json.encode(
        [
            _known(
                finishReason=call.finish_reason,
                errorCode=call.error_code,
                response=call.response if with_content else None,
            )
            for call in calls
        ]
    )


def _known(**members: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in members.items()
        if value is not None and (not isinstance(value, msgspec.Raw) or bytes(value) not in NOT_KEPT)
    }


class _Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    step_id: str
    attempt: int = 1
    loop_path: tuple[int, ...] | None = None
    status: str = "running"
    duration_ms: int | None = None
    model_used: str | None = None
    finish_reason: str | None = None
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    input_size_bytes: int | None = None
    output_size_bytes: int | None = None


class StoredAttempt(_Attempt, frozen=True, kw_only=True, gc=False, rename="camel"):
    """What is compared of a StepTrace, with its content."""

    input_context: msgspec.Raw = msgspec.Raw()
    output_context: msgspec.Raw = msgspec.Raw()
    error_context: msgspec.Raw = msgspec.Raw()
    model_calls: tuple[StoredCall, ...] = ()
    span_id: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    kind: str | None = None
    start_time_unix_nano: str | None = None


_stored = msgspec.json.Decoder(StoredAttempt)


class SpanPlace(NamedTuple):
    """What places a span in its tree."""

    id: str
    parent_id: str | None
    name: str | None
    kind: str | None
    start_time_unix_nano: str | None


class AttemptDigest(_Attempt, frozen=True, kw_only=True, gc=False):
    """An attempt as it is compared: its content as hashes, None where none was kept.

    `position` is that of its step in the store. `span` is there for one of a recorded run.
    """

    position: int
    input: int | None
    output: int | None
    error: int | None
    requests: CallsDigest | None
    responses: CallsDigest | None
    span: SpanPlace | None = None


def read_digest(position: int, data: bytes, texts: dict[str, str]) -> AttemptDigest:
    """The digest of a StepTrace in JSON. Raises msgspec.DecodeError.

    `texts` are those of other attempts, so that equal ones are in memory once.
    """
    step = read_attempt(data)
    told = {name: getattr(step, name) for name in _Attempt.__struct_fields__}
    told["loop_path"] = step.loop_path or None
    for name in ("step_id", "status", "model_used", "finish_reason"):
        if (text := told[name]) is not None:
            told[name] = texts.setdefault(text, text)
    requests, responses = digests_of(step.model_calls)
    return AttemptDigest(
        **told,
        position=position,
        input=_hash(step.input_context),
        output=_hash(step.output_context),
        error=_hash(step.error_context),
        requests=requests,
        responses=responses,
        span=None
        if step.span_id is None
        else SpanPlace(step.span_id, step.parent_span_id, step.name, step.kind, step.start_time_unix_nano),
    )


def _hash(snapshot: msgspec.Raw) -> int | None:
    data = bytes(snapshot)
    return None if data in NOT_KEPT else hash(data)


def read_attempt(data: bytes) -> StoredAttempt:
    """What is compared of a StepTrace in JSON. Raises msgspec.DecodeError."""
    return _stored.decode(data)


class AttemptPair(NamedTuple):
    """An attempt of the first run, and that of the second with the same address; None where there is none."""

    a: AttemptDigest | None
    b: AttemptDigest | None

    @property
    def one(self) -> AttemptDigest:
        """One of the two, for the address that both have."""
        found = self.b if self.a is None else self.a
        assert found is not None
        return found

    @property
    def differs(self) -> bool:
        """Whether there is a difference but for the duration, as far as hashes and sizes tell."""
        a, b = self
        if a is None or b is None or self.content_differs:
            return True
        return (
            (a.status, a.model_used, a.finish_reason, a.tokens, a.cost_usd)
            != (b.status, b.model_used, b.finish_reason, b.tokens, b.cost_usd)
            or differ_if_known(a.input_size_bytes, b.input_size_bytes)
            or differ_if_known(a.output_size_bytes, b.output_size_bytes)
        )

    @property
    def content_differs(self) -> bool:
        """Whether the content is needed to say in what the two differ."""
        a, b = self
        if a is None or b is None:
            return False
        return (
            differ_if_known(a.input, b.input)
            or differ_if_known(a.output, b.output)
            or a.error != b.error
            or calls_differ(a.requests, b.requests)
            or calls_differ(a.responses, b.responses)
        )

    @property
    def is_size_only(self) -> bool:
        """Whether both are there, and input or output of one was not kept, so that sizes alone can tell."""
        a, b = self
        if a is None or b is None or "skipped" in (a.status, b.status):
            return False
        ended = a.status == b.status == "completed"
        return None in (a.input, b.input) or (ended and None in (a.output, b.output))


def differ_if_known(a: int | None, b: int | None) -> bool:
    """Whether both are known, and not equal."""
    return a is not None and b is not None and a != b
