"""The audit log of the caller's own project; only a key with the role `admin` may read it."""

from typing import Annotated

from litestar import Response, get
from litestar.params import QueryParameter

from runglass.management import AuditPage
from runglass.server.asked import answer, documented
from runglass.server.auth import Asked, require_admin, runtime_of
from runglass.server.openapi import ReadingOperation
from runglass.server.pages import Cursor, Limit, Since, cursor_of_number, number_before, time_of
from runglass.server.query import STRICT

Action = Annotated[str | None, QueryParameter(description="an action, such as `key.revoked`")]


@get(
    "/audit",
    responses=documented(AuditPage, "A page of the audit log."),
    operation_class=ReadingOperation,
    tags=["Managing keys"],
    summary="Who changed what",
    opt={STRICT: True},
)
async def audit(
    request: Asked,
    action: Action = None,
    since: Since = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response[bytes]:
    """What was changed in the key's project, newest first; `nextCursor` is null on the last page.

    Keys made and revoked, flows pushed and published, runs deleted by hand, capture, budget and retention
    set, each with who did it and from where. Unknown parameters are refused.
    """
    require_admin(request, to="read the audit log")
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
