"""The audit log of the caller's own project; only a key with the role `admin` may read it."""

from starlette.responses import Response

from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import Parameter
from runglass.server.requests.body import answer
from runglass.server.requests.pagination import cursor_of_number, number_before, time_of
from runglass.server.security.authentication import runtime_of
from runglass.wire.admin_api import AuditPage

ACTION = Parameter("action", str, "an action, such as `key.revoked`")


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
    found = await runtime_of(request).store.audit(
        request.auth.project_id,
        action=action,
        since=None if since is None else time_of(since, name="since"),
        before=None if cursor is None else number_before(cursor),
        limit=limit + 1,
    )
    page = found[:limit]
    following = cursor_of_number(page[-1].id) if len(found) > limit else None
    return answer(AuditPage(entries=page, next_cursor=following))
