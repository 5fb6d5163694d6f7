"""Calls that are made once however often they are sent: what an `Idempotency-Key` means.

The key is noted in the transaction that creates the run, so two requests at the same instant cannot both
start one. Whoever comes later under the same key gets the first one's answer, or waits for it.
"""

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple

import msgspec
from litestar import Response

from runglass.errors import APIError, CallRepeated, api_error
from runglass.events import TERMINAL_EVENTS
from runglass.server.answers import JSON, error_body
from runglass.server.asked import body_of
from runglass.server.auth import Asked, runtime_of
from runglass.server.bodies import read_aside
from runglass.server.spelling import camel
from runglass.store.base import Call, CallKey, Project, RunRecord

MAX_KEY = 255
PAUSE_EVENTS = frozenset({"step_paused", "step_paused_for_tool_calls"})
REST_EVENTS = TERMINAL_EVENTS | PAUSE_EVENTS
"""Events after which a run goes on only if somebody takes it up again."""


class Answered(NamedTuple):
    """An answer as it is sent, and as it is kept for a repeated call."""

    status: int
    body: bytes


async def once(
    request: Asked,
    project: Project,
    work: Callable[[CallKey | None], Awaitable[Answered]],
    repeated: Callable[[RunRecord], Awaitable[Answered]],
) -> Response[bytes]:
    """The answer of `work`, which notes the call that it is given; `repeated` answers for a run it began.

    A call that was noted and, by a crash, never begun is begun now; `work` then gets None.
    Raises IDEMPOTENCY_MISMATCH for a key under which something else was asked.
    """
    call = await call_of(request)
    if call is None:
        return _response(await work(None))
    store, key = runtime_of(request).store, call.key
    before = await repeated_call(request, project, call)
    if before is None or await never_begun(request, before):
        try:
            answered = await work(None if before else call)
        except CallRepeated:
            before = await repeated_call(request, project, call)
        except APIError as error:
            # Refused before there was a run: nothing was noted, and the next try is a new one. Unavailable:
            # the run goes on later, and whoever asks again then gets its outcome.
            if error.execution_id is not None and error.status != 503:
                await store.answer_call(project.id, key, status=error.status, answer=error_body(error))
            raise
        else:
            await store.answer_call(project.id, key, status=answered.status, answer=answered.body)
            return _response(answered)
    if before is None:
        raise api_error("UNAVAILABLE", f"the call {key!r} was dropped while it was repeated; send it again")
    return _response(await _again(request, before, repeated))


async def call_of(request: Asked) -> CallKey | None:
    """The call that the request's Idempotency-Key names; None without one. Raises INVALID_REQUEST."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY:
        raise api_error("INVALID_REQUEST", f"the header Idempotency-Key must have 1 to {MAX_KEY} characters")
    asked = await read_aside(_asked, await body_of(request))
    return CallKey(key, hashlib.sha256(b"%b\n%b" % (request.scope["path"].encode(), asked)).digest())


def _asked(body: bytes) -> bytes:
    """What a body asks, the same bytes however it was written down; a body that is no JSON as it is."""
    try:
        value = msgspec.json.decode(body)
        if isinstance(value, dict):
            value = {camel(name): member for name, member in value.items() if member is not None}
        return msgspec.json.encode(value, order="sorted")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return body


async def repeated_call(request: Asked, project: Project, call: CallKey) -> Call | None:
    """The same call, if it has been made before. Raises IDEMPOTENCY_MISMATCH for another under its key."""
    before = await runtime_of(request).store.call(project.id, call.key)
    if before is not None and before.digest != call.digest:
        message = f"something else was asked under the Idempotency-Key {call.key!r}; use a new one"
        raise api_error("IDEMPOTENCY_MISMATCH", message, execution_id=before.run_id)
    return before


async def never_begun(request: Asked, call: Call) -> bool:
    """Whether a call that goes on with a paused run was noted, and its process died before it did so."""
    runtime = runtime_of(request)
    if call.answer is not None or runtime.engine.goes_on(call.run_id):
        return False
    run = await runtime.store.run(call.run_id)
    return run is not None and run.status == "paused" and run.head == call.head


async def _again(
    request: Asked, before: Call, repeated: Callable[[RunRecord], Awaitable[Answered]]
) -> Answered:
    if before.status is not None and before.answer is not None:
        return Answered(before.status, before.answer)
    run = await runtime_of(request).store.run(before.run_id)
    if run is None:
        raise api_error("RUN_NOT_FOUND", f"there is no run {before.run_id!r}", execution_id=before.run_id)
    return await repeated(run)


async def rested(request: Asked, run: RunRecord) -> RunRecord:
    """The run once it has ended or is paused."""
    runtime = runtime_of(request)
    while not run.ended and run.status != "paused":
        pages = runtime.tails.follow(run, after=run.head, until=REST_EVENTS)
        async with aclosing(pages):
            async for _ in pages:
                pass
        run = await runtime.store.run(run.id) or run
    return run


def _response(answered: Answered) -> Response[bytes]:
    return Response(answered.body, status_code=answered.status, media_type=JSON)
