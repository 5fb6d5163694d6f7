"""Importing a run from a file that another server has written."""

from starlette.responses import Response

from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON
from runglass.server.requests.body_parts import body_parts
from runglass.server.security.authentication import actor_of
from runglass.server.security.revocation import while_allowed

NOT_IMPORTED = "nothing was imported"


async def import_run(request: ApiRequest) -> Response:
    """Makes the run of a file (`GET …/export`, `json` or `jsonl`): with the same id, events and trace.

    All of it or nothing. The run must have ended. Its flow is made, as a draft, where the project has none
    with its id; a flow or a version that is another one here, and a run that is there already, are refused
    with 409. Nothing is charged to the project's budget.
    """
    settings = request.services.runtime.settings
    parts = body_parts(request, limit_bytes=settings.import_limit_bytes, silence_s=settings.body_time_limit_s)
    imports = request.services.imports
    work = imports.take(request.auth.project_id, parts, by=actor_of(request))
    summary = await while_allowed(request, None, work, otherwise=NOT_IMPORTED)
    return Response(summary, status_code=201, media_type=JSON)
