"""The keys of the caller's own project and its audit log; only a key with the role `admin` may."""

import msgspec
from starlette.responses import Response

from runglass.errors import KeyLimitReached, api_error
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import Parameter
from runglass.server.requests.body import answer, body_of
from runglass.server.requests.body_parsing import read_body
from runglass.server.requests.pagination import cursor_of_number, number_before, since_epoch_ms
from runglass.server.security.authentication import actor_of
from runglass.store.keys import make_key
from runglass.store.records import ApiKey
from runglass.support.clock import iso_ms
from runglass.wire.admin_api import AuditPage, KeyInfo, KeyList, KeyRequest, NewKeyInfo

ACTION = Parameter("action", str, "an action, such as `key.revoked`")

LARGEST = 2**63 - 1


async def keys(request: ApiRequest, limit: int, cursor: str | None) -> Response:
    """The keys of the caller's project, revoked ones too: their beginnings, never the keys.

    The last page has no `nextCursor`.
    """
    after = 0 if cursor is None else number_before(cursor)
    found = await request.services.runtime.store.keys(request.auth.project_id, after=after, limit=limit + 1)
    page = found[:limit]
    following = cursor_of_number(page[-1].id) if len(found) > limit else None
    listed = msgspec.convert(page, list[KeyInfo], from_attributes=True)
    return answer(KeyList(keys=listed, next_cursor=following))


async def create_key(request: ApiRequest) -> Response:
    """Makes a key for the caller's project. Only its hash is kept, so it must be noted now."""
    call_body = read_body(await body_of(request), KeyRequest)
    made = make_key()
    runtime = request.services.runtime
    try:
        key = await runtime.store.add_key(
            request.auth.project_id,
            call_body.role,
            made.digest,
            made.hint,
            most=runtime.settings.max_keys_per_project,
            by=actor_of(request),
        )
    except KeyLimitReached as error:
        raise api_error("FORBIDDEN", str(error)) from error
    return answer(NewKeyInfo(**msgspec.structs.asdict(_info(key)), key=made.key), status=201)


async def revoke_key(request: ApiRequest, key_id: int) -> Response:
    """Makes a key useless, at once and for good; what is being answered to it ends.

    A key cannot revoke itself: another one must be left.
    """
    store, project_id = request.services.runtime.store, request.auth.project_id
    # No row of a database has a larger number.
    if key_id > LARGEST or await store.key(project_id, key_id) is None:
        raise api_error("KEY_NOT_FOUND", f"the project has no key {key_id}")
    if key_id == request.auth.id:
        raise api_error("FORBIDDEN", f"key {key_id} cannot revoke itself; make another one and use that")
    await store.revoke_key(project_id, key_id, by=actor_of(request))
    await request.services.open_responses.end_key(key_id)
    revoked = await store.key(project_id, key_id)
    if revoked is None:
        raise api_error("KEY_NOT_FOUND", f"the project has no key {key_id}")
    return answer(_info(revoked))


async def audit(
    request: ApiRequest,
    action: str | None,
    since: str | None,
    limit: int,
    cursor: str | None,
) -> Response:
    """The changes in the key's project, newest first; `nextCursor` is null on the last page.

    Keys made and revoked, flows pushed and published, runs deleted by hand, capture, budget and retention
    set, each with its actor and its address. Unknown parameters are refused.
    """
    found = await request.services.runtime.store.audit(
        request.auth.project_id,
        action=action,
        since=None if since is None else iso_ms(since_epoch_ms(since, name="since")),
        before=None if cursor is None else number_before(cursor),
        limit=limit + 1,
    )
    page = found[:limit]
    following = cursor_of_number(page[-1].id) if len(found) > limit else None
    return answer(AuditPage(entries=page, next_cursor=following))


def _info(key: ApiKey) -> KeyInfo:
    return msgspec.convert(key, KeyInfo, from_attributes=True)
