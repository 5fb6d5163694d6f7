"""A run as a file: written in the format that was asked for, or read, as another server has written it."""

from starlette.responses import Response

from runglass.run_files.header import MEDIA_TYPES, file_name
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.open_responses import while_allowed
from runglass.server.http.response_stream import StreamedResponse, json_stream
from runglass.server.requests.body import body_parts
from runglass.server.security.authentication import actor_of, project_of_key
from runglass.server.services import run_export, run_import
from runglass.store.base import summary_of
from runglass.store.records import RunRecord
from runglass.wire.run_api import ExportFormat

FORMAT = Parameter("format", ExportFormat, "json, jsonl, otlp or perfetto", default="json")


NOT_IMPORTED = "nothing was imported"


async def export(request: ApiRequest, run: RunRecord, format: ExportFormat) -> StreamedResponse:
    """All that is kept of the run, as a file.

    Each event is in it as it is stored: `jsonl` has a header and then an event on each line, `json` is one
    document that has the trace, too; `POST /flow-runs/import` takes both. `otlp` is OTLP/JSON with a span for
    each container, iteration, attempt and model call, `perfetto` the same tree as trace events for Perfetto.
    Of a run that goes on it is the part up to now.
    """
    slug = summary_of(run).flow_slug
    store = request.services.runtime.store
    parts = await run_export.parts(store, request.services.outlines, run, format)
    headers = {
        "content-type": MEDIA_TYPES[format],
        "content-disposition": f'attachment; filename="{file_name(format, run.id, slug)}"',
    }
    return json_stream(request, parts, headers=headers)


async def import_run(request: ApiRequest) -> Response:
    """Makes the run of a file (`GET …/export`, `json` or `jsonl`): with the same id, events and trace.

    All of it or nothing. The run must have ended. Its flow is made, as a draft, where the project has none
    with its id; a flow or a version that is another one here, and a run that is there already, are refused
    with 409. Nothing is charged to the project's budget.
    """
    settings = request.services.runtime.settings
    parts = body_parts(request, limit_bytes=settings.import_limit_bytes, silence_s=settings.body_time_limit_s)
    project = await project_of_key(request)
    work = run_import.import_run(request.services.runtime, project, parts, by=actor_of(request))
    summary = await while_allowed(request, None, work, otherwise=NOT_IMPORTED)
    return Response(summary, status_code=201, media_type=JSON)
