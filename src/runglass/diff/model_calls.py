"""The model calls of an attempt as a diff compares them: what models were asked, and what they answered.

Tokens, cost and the model that answered are compared as the attempt has them; times and ids always differ.
What one run kept and the other did not is no difference. No I/O.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

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
