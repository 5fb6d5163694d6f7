"""A run as a file, in the format that was asked for."""

import msgspec

from runglass.log.trace import RunSummary
from runglass.run_files.header import MEDIA_TYPES, file_name
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import Parameter
from runglass.server.http.response_stream import StreamedResponse
from runglass.server.security.authentication import runtime_of
from runglass.server.security.revocation import parts_while_allowed
from runglass.server.services import run_export, tree_export
from runglass.store.base import decoding
from runglass.store.records import RunRecord
from runglass.wire.run_api import ExportFormat

FORMAT = Parameter("format", ExportFormat, "json, jsonl, otlp or perfetto", default="json")


async def export(request: ApiRequest, run: RunRecord, format: ExportFormat) -> StreamedResponse:
    """All that is kept of the run, as a file.

    Each event is in it as it is stored: `jsonl` has a header and then an event on each line, `json` is one
    document that has the trace, too; `POST /flow-runs/import` takes both. `otlp` is OTLP/JSON with a span for
    each container, iteration, attempt and model call, `perfetto` the same tree as trace events for Perfetto.
    Of a run that goes on it is the part up to now.
    """
    with decoding(run.id):
        slug = msgspec.json.decode(run.summary, type=RunSummary).flow_slug
    store = runtime_of(request).store
    if format == "otlp" or format == "perfetto":
        parts = tree_export.parts(store, request.services.outlines, run, format)
    else:
        parts = await run_export.parts(store, run, format)
    headers = [
        (b"content-type", MEDIA_TYPES[format].encode()),
        (b"content-disposition", b'attachment; filename="%b"' % file_name(format, run.id, slug).encode()),
    ]
    return StreamedResponse(parts_while_allowed(request, parts), headers=headers)
