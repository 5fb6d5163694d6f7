"""A call that runs a flow: what its request says, read once, and what the call has come to.

Two requests are the same call by an Idempotency-Key, or without one by their fingerprint. Both look at the
target: path, known parameters of the query, and session. A repeat without a key must have the same bytes for
a body; under a key two bodies that say the same are the same.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.responses import Response

from runglass.errors import APIError
from runglass.flows.flow import Flow
from runglass.limits.offload import LARGE_BYTES, offload
from runglass.runtime.runtime import Runtime
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.server.http.open_responses import while_allowed
from runglass.server.requests.body import body_of
from runglass.server.requests.body_parsing import members_of, read_request
from runglass.server.requests.did_you_mean import camel
from runglass.server.requests.parameters import (
    IDEMPOTENCY_KEY,
    SESSION_ID,
    checked_uuid,
    idempotency_key_of,
    refuse_two_values,
    requested_version,
)
from runglass.server.security.authentication import require_project
from runglass.store.records import IdempotencyKey, IdempotencyRecord, Project

Body = TypeVar("Body", bound=msgspec.Struct)

REPLAYED = "Idempotent-Replayed"
"""The header of a response that repeats an earlier one."""


class CallFingerprint(NamedTuple):
    """The identity of a call: its project and key, and the hash of its target (path and query) and body."""

    project_id: int
    key_id: int
    digest: bytes


class StoredResponse(NamedTuple):
    """A response as it is sent, and sent once more to repeats of the call."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}  # a NamedTuple's default, never changed

    def sent(self) -> Response:
        """The response to the call itself."""
        return Response(self.body, status_code=self.status, media_type=JSON, headers=self.headers)

    def replayed(self) -> Response:
        """The response to a repeat of the call."""
        return self._replace(headers={**self.headers, REPLAYED: "true"}).sent()


@dataclass(eq=False, kw_only=True, slots=True)
class Call:
    """A call of the flow `slug` of a project, in the version `number`; None where it names none.

    `size_bytes` is about how large its body is, `resumes` whether it resumes a run, `may_pause` whether it
    may end in a pause. A repeat is known by its `key`, or else its `fingerprint`, where failures are repeated
    to it. `before` is the same call as it was made before: its record under the key, or the failure that it
    got. `version` and `flow` are what it calls at the moment; where that is not there, or not any more,
    `missing` refuses a call that is no repeat.
    """

    request: ApiRequest
    project: Project
    slug: str
    number: int | None = None
    version: int = 0
    flow: Flow | None = None
    session_id: str | None = None
    size_bytes: int = 0
    key: IdempotencyKey | None = None
    fingerprint: CallFingerprint | None = None
    resumes: bool = False
    may_pause: bool = False
    before: IdempotencyRecord | StoredResponse | None = None
    missing: APIError | None = None

    @property
    def runtime(self) -> Runtime:
        """The runtime that the application serves."""
        return self.request.services.runtime

    async def refuse_unless_repeated(self, error: APIError) -> None:
        """Raises the 404, or leaves it to whoever compares the call with an earlier one under its key."""
        if error.status != HTTPStatus.NOT_FOUND or (key := idempotency_key_of(self.request)) is None:
            raise error
        # The first call is not in the store before its run is.
        is_begun = (self.project.id, key) in self.request.services.call_locks
        if not is_begun and await self.runtime.store.call(self.project.id, key) is None:
            raise error
        self.missing = error


async def find_call(
    request: ApiRequest, org: str, project: str, slug: str, version: str | None, version_query: str | None
) -> Call:
    """The call of a version of a flow. Raises APIError.

    The flow is looked up before the body is read: for an unknown flow, mistakes in the body do not matter.
    A call without a flow can still repeat one that had it.
    """
    own = await require_project(request, org, project, slug)
    number = requested_version(version, version_query)
    call = Call(request=request, project=own, slug=slug, number=number)
    try:
        _, call.version, call.flow = await call.runtime.find(own, slug, call.number)
    except APIError as error:
        await call.refuse_unless_repeated(error)
    return call


@asynccontextmanager
async def admitted(
    call: Call, shape: type[Body], session_id: str | None, *, empty: bytes = b""
) -> AsyncIterator[Body]:
    """The body of the call, for a block that starts or resumes its run: large calls take turns for that.

    Decoded, a body takes up to twenty-five times its bytes: many at once would fill the memory before the
    first of them is counted as a run. Those that wait are counted, too, as the limits of connections do not
    hold for a caller that sends a body and leaves. A body without bytes is read as `empty`. Raises APIError.
    """
    request, limits = call.request, call.request.services.limits
    refuse_two_values(request, SESSION_ID, IDEMPOTENCY_KEY)
    if session_id is not None:
        call.session_id = checked_uuid(session_id, what="the header X-Session-Id")
    key = idempotency_key_of(request)
    body = await body_of(request)
    call.size_bytes = len(body)
    with limits.memory.receiving(call.project.id) as received:
        received(call.size_bytes)
        async with AsyncExitStack() as turn:
            if call.size_bytes > LARGE_BYTES:
                entering = turn.enter_async_context(limits.large_requests.turn(call.project.id))
                await while_allowed(request, None, entering, otherwise="nothing was started")
            reading = partial(read_request, shape=shape, most_values=call.runtime.settings.body_values_limit)
            try:
                # First: a key's digest decodes the body, too, and the values of both would be held at once.
                await _identify(call, key, body)
                read = await offload(partial(reading, body or empty), size_bytes=call.size_bytes)
            except APIError as mistake:
                if call.missing is None:
                    raise
                raise call.missing from mistake
            yield read


async def _identify(call: Call, key: str | None, body: bytes) -> None:
    """Notes by what a repeat of the call is known: its Idempotency-Key, or else its fingerprint.

    Raises INVALID_REQUEST.
    """
    request = call.request
    most_values = None if key is None else call.runtime.settings.body_values_limit
    hashing = partial(_digest, _target(request), body, most_values=most_values)
    digest = await offload(hashing, size_bytes=call.size_bytes)
    if key is None:
        call.fingerprint = CallFingerprint(request.auth.project_id, request.auth.id, digest)
    else:
        call.key = IdempotencyKey(key, digest)


def _digest(target: bytes, body: bytes, *, most_values: int | None) -> bytes:
    """The hash of target and body; with `most_values` equal for equal values. Raises INVALID_REQUEST."""
    if body and most_values is not None:
        members = members_of(body, most_values=most_values)
        given = {camel(name): member for name, member in members.items()}
        body = msgspec.json.encode(sorted_members(given))
    hashed = hashlib.sha256(b"%b\n" % target)
    hashed.update(body)
    return hashed.digest()


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


def _target(request: ApiRequest) -> bytes:
    """The path, the parameters of the query as `routing.py` has settled them, and the session of the run."""
    path, query = request.scope["path"].encode(), request.scope["query_string"]
    target = b"%b?%b" % (path, query) if query else path
    session = request.headers.get("x-session-id")
    # A call for another session starts another run.
    return target if session is None else b"%b session %b" % (target, session.lower().encode())
