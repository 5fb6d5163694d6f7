"""The `Idempotency-Key`: a call is made once, however often it is sent.

The key is noted in the transaction that creates the run, so two requests at the same instant cannot both
start one. A later request under the same key gets the response of the first, or waits for it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import NamedTuple
from weakref import WeakValueDictionary

from starlette.responses import Response

from runglass.engine.scheduling.pacing import paced_write
from runglass.errors import (
    APIError,
    DuplicateIdempotencyKey,
    StoreError,
    StoreUnreachable,
    StoreWentBack,
    api_error,
)
from runglass.log.events import TERMINAL_EVENTS
from runglass.runtime.runtime import Runtime
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.server.http.error_responses import error_body, once_started
from runglass.server.requests.idempotency_key import idempotency_key_of
from runglass.server.security.authentication import lost_run, no_run, runtime_of
from runglass.server.security.content_access import require_owed
from runglass.server.security.revocation import while_awaited
from runglass.server.services.failure_replay import REPLAYED, replay_failure
from runglass.server.services.run_failure import answer_expired
from runglass.store.records import IdempotencyKey, IdempotencyRecord, Project, RunRecord

log = logging.getLogger(__name__)

PAUSE_EVENTS = frozenset({"step_paused", "step_paused_for_tool_calls"})
REST_EVENTS = TERMINAL_EVENTS | PAUSE_EVENTS
"""Events after which a run goes on only if a call resumes it."""

AGAIN_S = 0.5
"""How soon a database that is away is asked again."""

NOTED_S, LOOK_S = 2.0, 0.05
"""So long another server may take from noting a call to resuming its run, and so often that is looked for."""

NO_ANSWERS = frozenset({"UNAVAILABLE", "INTERNAL_ERROR", "UNAUTHENTICATED"})
"""Codes of errors that are not the outcome of a call, and so are not kept."""

Finish = Callable[[], Awaitable["StoredResponse"]]
"""Waits for the response of a call that has begun. Raises APIError."""

NoteCall = Callable[[RunRecord], Awaitable[None]]
"""Notes a call that is about to resume this run. Raises DuplicateIdempotencyKey."""


class StoredResponse(NamedTuple):
    """A response as it is sent, and as it is kept for repeats of the call."""

    status: int
    body: bytes


async def with_idempotency(
    request: ApiRequest,
    project: Project,
    begin: Callable[[IdempotencyKey | None], Awaitable[Finish]],
    repeated: Callable[[RunRecord, int], Awaitable[StoredResponse]],
    *,
    resumes: str | None = None,
) -> Response:
    """The response of a call, which is begun once.

    `begin` notes the call that it gets, starts or resumes a run (`resumes`, if given), and returns a function
    that waits for the response. `repeated` makes the response for an earlier call that has none yet, from its
    run and the seq of the run after which the call began.

    Raises IDEMPOTENCY_MISMATCH for a key that came with another request before; `idempotency_key.py` says
    when two requests are the same.
    """
    call = await idempotency_key_of(request)
    if call is None:

        async def run() -> Response:
            return _response(await (await begin(None))())

        return await replay_failure(request, run, resumes=resumes)
    finish = None
    async with hold_idempotency_lock(request, project, call) as before:
        if before is None:
            try:
                finish = await begin(call)
            except DuplicateIdempotencyKey:
                before = await earlier_call(request, project, call)
            except APIError as error:
                await keep_refusal(request, project, call, error)
                raise
    if before is not None:
        with once_started(before.run_id):
            return _response(await _repeated_answer(request, before, repeated), {REPLAYED: "true"})
    if finish is None:
        raise dropped(call)
    try:
        answered = await finish()
    except APIError as error:
        await keep_refusal(request, project, call, error)
        raise
    await _keep(request, project, call, answered)
    return _response(answered)


def dropped(call: IdempotencyKey) -> APIError:
    """The error for a call that was noted, and is not any more."""
    return api_error("UNAVAILABLE", f"the call {call.key!r} was dropped while it was repeated; send it again")


@asynccontextmanager
async def hold_idempotency_lock(
    request: ApiRequest, project: Project, call: IdempotencyKey
) -> AsyncIterator[IdempotencyRecord | None]:
    """The record of the same call from before; without one None, and then only this block may begin it.

    Raises IDEMPOTENCY_MISMATCH. A call that was noted, but did not resume its run because of a crash, counts
    as not made.
    """
    turns: WeakValueDictionary[tuple[int, str], asyncio.Lock] = request.services.idempotency_locks
    # The requests that wait for the lock keep it alive; it goes with the last of them.
    lock = turns.setdefault((project.id, call.key), asyncio.Lock())
    if lock.locked():
        await while_awaited(request, None, lock.acquire(), otherwise="the call that it repeats goes on")
    else:
        await lock.acquire()
    try:
        before = await earlier_call(request, project, call)
        if before is not None and await _never_resumed(request, before):
            before = None
        yield before
    finally:
        lock.release()


async def keep_refusal(request: ApiRequest, project: Project, call: IdempotencyKey, error: APIError) -> None:
    """Keeps an error as the response of the call, where the call has been noted.

    A fault of the server is not kept: the run goes on later, or has an outcome that could not be read, and a
    repeat of the call gets that. The revocation of a key is not kept either, as the run goes on.
    """
    if error.execution_id is not None and error.code not in NO_ANSWERS:
        await _keep(request, project, call, StoredResponse(error.status, error_body(error)))


async def _keep(
    request: ApiRequest, project: Project, call: IdempotencyKey, answered: StoredResponse
) -> None:
    try:
        async with paced_write(project.id, len(answered.body)):
            await runtime_of(request).store.answer_call(
                project.id, call.key, status=answered.status, answer=answered.body
            )
    except StoreError as error:
        # The response can be sent without being kept: a repeat gets its own from the stored run.
        log.warning("the answer to the call %r is not kept: %s", call.key, error)


@asynccontextmanager
async def resuming_call(
    request: ApiRequest, project: Project, call: IdempotencyKey | None
) -> AsyncIterator[NoteCall]:
    """For a block that resumes a run: the function that it calls when all is checked, to note the call.

    Raises DuplicateIdempotencyKey where another server resumes the run for the same call at this moment.
    """
    store, is_own = runtime_of(request).store, False
    noted = None if call is None else await store.call(project.id, call.key)
    if noted is not None and not await _stays_unmade(request, noted):
        raise DuplicateIdempotencyKey(f"the call {noted.key!r} is made elsewhere")
    # One that a server noted before it crashed; this block makes it then.
    was_noted = noted is not None

    async def note(run: RunRecord) -> None:
        nonlocal is_own
        if call is None or was_noted:
            return
        # Raises where another server has noted it meanwhile, and so resumes the run.
        await store.begin_call(project.id, call, run)
        is_own = True

    try:
        yield note
    except APIError as error:
        if call is None or is_own or error.code != "RUN_NOT_PAUSED":
            raise
        if await store.call(project.id, call.key) is None:
            raise
        raise DuplicateIdempotencyKey(f"the call {call.key!r} is made elsewhere") from error


async def earlier_call(
    request: ApiRequest, project: Project, call: IdempotencyKey
) -> IdempotencyRecord | None:
    """The same call as it was noted before, by any server. Raises IDEMPOTENCY_MISMATCH."""
    before = await runtime_of(request).store.call(project.id, call.key)
    if before is not None and before.digest != call.digest:
        message = f"something else was asked under the Idempotency-Key {call.key!r}; use a new one"
        raise api_error("IDEMPOTENCY_MISMATCH", message, execution_id=before.run_id)
    return before


async def _stays_unmade(request: ApiRequest, call: IdempotencyRecord) -> bool:
    """Whether a call that has been noted does not resume its run: its server is gone, and not only slow."""
    now_s = asyncio.get_running_loop().time
    until_s = now_s() + (NOTED_S if runtime_of(request).engine.shares_store else 0.0)
    while await _never_resumed(request, call):
        if now_s() >= until_s:
            return True
        await asyncio.sleep(LOOK_S)
    return False


async def _never_resumed(request: ApiRequest, call: IdempotencyRecord) -> bool:
    runtime = runtime_of(request)
    if call.status is not None or runtime.engine.active.is_active(call.run_id):
        return False
    run = await runtime.store.run(call.run_id)
    return run is not None and run.status == "paused" and run.head == call.head and not run.is_resuming


async def _repeated_answer(
    request: ApiRequest,
    before: IdempotencyRecord,
    repeated: Callable[[RunRecord, int], Awaitable[StoredResponse]],
) -> StoredResponse:
    run = await runtime_of(request).store.run(before.run_id)
    if run is None:
        raise no_run(before.run_id)
    require_owed(request.auth, run, what="the answer to this call")
    if before.status is not None:
        if before.answer is None:
            raise answer_expired(before.run_id)
        return StoredResponse(before.status, before.answer)
    return await repeated(run, before.head)


async def wait_until_idle(request: ApiRequest, run: RunRecord, *, beyond: int = -1) -> RunRecord:
    """The run once it has ended, or is paused by an event after seq `beyond`.

    Raises UNAVAILABLE if the server is stopped before, UNAUTHENTICATED if the key is revoked, CallerLeft.
    """
    return await while_awaited(request, run.id, idle_run(runtime_of(request), run, beyond=beyond))


async def idle_run(runtime: Runtime, run: RunRecord, *, beyond: int) -> RunRecord:
    """Like `wait_until_idle`, without an end for the server's stop and the revocation of the key.

    The process that has the run waits for a database that is away, and so does this, up to `lease_s` seconds.
    Where the store goes back to the pause that the run was resumed from, it is paused by that one again.
    """
    generation = runtime.store.generation
    away_since_s: float | None = None
    has_begun = False
    while not run.ended and not (
        run.status == "paused" and (run.head > beyond or (has_begun and not run.is_resuming))
    ):
        has_begun = run.status != "paused" or run.is_resuming
        ping_s = runtime.settings.ping_s
        try:
            pages = runtime.tails.follow(run, after=run.head, until=REST_EVENTS, idle_s=ping_s)
            async with aclosing(pages):
                with suppress(StoreWentBack):
                    async for page in pages:
                        # Once in a while: where the store goes back, no event says that the run waits again.
                        if not page:
                            break
            now = await runtime.store.run(run.id)
        except StoreUnreachable:
            now_s = time.monotonic()
            away_since_s = away_since_s or now_s
            if now_s - away_since_s > runtime.settings.lease_s:
                raise
            await asyncio.sleep(AGAIN_S)
            continue
        if now is None:
            raise no_run(run.id) if runtime.store.generation == generation else lost_run(run.id)
        run, away_since_s = now, None
    if not run.ended and run.head <= beyond:
        # The segment that the store has no trace of any more is let go with the next renewal of the lease.
        await runtime.engine.active.join(run.id)
    return run


def _response(answered: StoredResponse, headers: dict[str, str] | None = None) -> Response:
    return Response(answered.body, status_code=answered.status, media_type=JSON, headers=headers)
