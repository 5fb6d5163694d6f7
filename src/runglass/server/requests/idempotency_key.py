"""When two requests are the same call: what an Idempotency-Key, or a repeat without one, is compared by.

Both look at the target: path, known parameters of the query, and session. A repeat without a key must have
the same bytes for a body; under a key two bodies that say the same are the same.
"""

import hashlib
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec

from runglass.errors import api_error
from runglass.server.api_request import ApiRequest
from runglass.server.requests.body import body_of
from runglass.server.requests.body_parsing import parse_off_loop
from runglass.server.requests.did_you_mean import camel
from runglass.server.requests.parameters import MAX_KEY
from runglass.store.records import IdempotencyKey


class CallFingerprint(NamedTuple):
    """The identity of a call: its project and key, its target (path and query), and the hash of its body."""

    project_id: int
    key_id: int
    target: bytes
    digest: bytes


async def idempotency_key_of(request: ApiRequest) -> IdempotencyKey | None:
    """The Idempotency-Key with the digest of the request; None without a key. Raises INVALID_REQUEST."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY:
        raise api_error("INVALID_REQUEST", f"the header Idempotency-Key must have 1 to {MAX_KEY} characters")
    return IdempotencyKey(
        key, await parse_off_loop(partial(_digest, _target(request)), await body_of(request))
    )


def _digest(target: bytes, body: bytes) -> bytes:
    """The hash of target and body, equal for equal values; a body that is no JSON stands as it is."""
    with suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        value = msgspec.json.decode(body)
        if isinstance(value, dict):
            value = {camel(name): member for name, member in value.items() if member is not None}
        body = msgspec.json.encode(sorted_members(value))
    return hashlib.sha256(b"%b\n%b" % (target, body)).digest()


def sorted_members(value: Any) -> Any:
    """The value with the members of each object sorted by name.

    The encoder's own sorting does not serve: for names in a hostile order it takes quadratic time in native
    code, and a stack as deep as there are names.
    """
    holder = [value]
    pending: list[tuple[Any, Any]] = [(holder, 0)]
    while pending:
        target, key = pending.pop()
        inner = target[key]
        if type(inner) is dict:
            inner = target[key] = {name: inner[name] for name in sorted(inner)}
        members = inner.items() if type(inner) is dict else enumerate(inner) if type(inner) is list else ()
        pending += [(inner, at) for at, member in members if type(member) is dict or type(member) is list]
    return holder[0]


async def fingerprint_of(request: ApiRequest) -> CallFingerprint:
    """What a repeat without an Idempotency-Key is known by."""
    digest = await parse_off_loop(lambda body: hashlib.sha256(body).digest(), await body_of(request))
    return CallFingerprint(request.auth.project_id, request.auth.id, _target(request), digest)


def _target(request: ApiRequest) -> bytes:
    """The path, the parameters of the query as `routing.py` has settled them, and the session of the run."""
    path, query = request.scope["path"].encode(), request.scope["query_string"]
    target = b"%b?%b" % (path, query) if query else path
    session = request.headers.get("x-session-id")
    # A call for another session starts another run.
    return target if session is None else b"%b session %b" % (target, session.lower().encode())
