"""What programs send over OTLP: traces and logs are recorded, metrics are answered and counted."""

from collections import Counter
from functools import partial
from typing import get_args

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.responses import Response

from runglass.errors import RequestError
from runglass.limits.offload import offload_in_turn
from runglass.log.measurements import measured
from runglass.recording.otlp import NotOtlp, Signal
from runglass.recording.recordings import Recorded
from runglass.server.api_request import ApiRequest
from runglass.server.endpoint import JSON, Parameter
from runglass.server.http.error_responses import invalid
from runglass.server.requests.body import (
    CODINGS,
    answer,
    body_of,
    coding_of,
    decompressed,
)
from runglass.server.security.authentication import project_of_key
from runglass.wire.run_api import CaptureMode

CAPTURE = "X-Runglass-Capture"
"""Of a request: that its sender wants to know how the content is kept; of the response: how."""
FLOW = Parameter("x-runglass-flow", str, "the flow of which the runs are", argument="flow")
CONTENT_ENCODING = Parameter("Content-Encoding", str, f"{', '.join(CODINGS)} or identity")

PROTOBUF = "application/x-protobuf"
PROTOBUF_TYPES = frozenset({"", PROTOBUF, "application/protobuf"})
MOST_REASONS = 10
"""The most reasons that an answer has, those of the most spans first."""


async def traces(request: ApiRequest, flow: str | None) -> Response:
    """Records spans; those of one trace are a run. All that is not rejected can be read from then on.

    `partialSuccess` has the number of rejected spans, and the reasons. After a 503, send the request again:
    what is stored already is not stored twice. Paths with another beginning are the same. Where the request
    has a header `X-Runglass-Capture`, that of the response is the capture mode of its runs.
    """
    is_json = _is_json(request)
    rejected, modes = await _record(request, "traces", flow, is_json=is_json)
    response = _answer(rejected, "rejectedSpans", is_json=is_json)
    if modes and CAPTURE in request.headers:
        # Of several the one that keeps least.
        response.headers[CAPTURE] = min(modes, key=get_args(CaptureMode).index)
    return response


async def logs(request: ApiRequest, flow: str | None) -> Response:
    """Records log records, each as a part of the span whose trace and span id it has, before it or after it.

    One without ids is rejected, as it belongs to no span.
    """
    is_json = _is_json(request)
    rejected, _ = await _record(request, "logs", flow, is_json=is_json)
    return _answer(rejected, "rejectedLogRecords", is_json=is_json)


async def metrics(request: ApiRequest, flow: str | None) -> Response:
    """Answers and counts the request. Nothing of it is kept, and it is not looked at."""
    is_json = _is_json(request)
    await body_of(request, limit_bytes=request.services.runtime.settings.otlp_limit_bytes)
    measured.otlp_requests["metrics"] += 1
    return _answer(Counter(), "", is_json=is_json)


async def _record(request: ApiRequest, signal: Signal, flow: str | None, *, is_json: bool) -> Recorded:
    """Records what is in the body.

    Raises INVALID_REQUEST, UNAVAILABLE where the project is full, and StoreError.
    """
    runtime, project_id = request.services.runtime, request.auth.project_id
    coding, limit = coding_of(request), runtime.settings.otlp_limit_bytes
    body = await body_of(request, limit_bytes=limit)
    with request.services.limits.memory.receiving(project_id) as held:
        held(len(body))
        if coding is not None:
            body = await offload_in_turn(partial(decompressed, body, coding, limit_bytes=limit))
            held(len(body))
        project = await project_of_key(request)
        runtime.require_room(project)
        measured.otlp_requests[signal] += 1
        try:
            found = runtime.spans.pieces(body, signal, is_json=is_json, flow=flow, project_id=project_id)
            recorded = await runtime.recordings.record(project, found)
        except NotOtlp as error:
            raise invalid(f"{error}; nothing of it was stored") from error
        measured.refused_spans += recorded.refused
        return recorded


def _is_json(request: ApiRequest) -> bool:
    """Whether the body is JSON and not protobuf. Raises INVALID_REQUEST where it is neither."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON and media_type not in PROTOBUF_TYPES:
        message = f"the body is {media_type!r:.80}; send {PROTOBUF} or {JSON}"
        raise RequestError(message, code="INVALID_REQUEST", status=415)
    return media_type == JSON


def _answer(rejected: Counter[str], counted: str, *, is_json: bool) -> Response:
    """The response in the encoding of the request; `counted` is the name of the count in JSON."""
    count, shown = rejected.total(), rejected.most_common(MOST_REASONS)
    told = [f"{times:,} × {reason}" for reason, times in shown]
    if rest := count - sum(times for _, times in shown):
        told.append(f"{rest:,} × other reasons")
    message = "; ".join(told)
    if is_json:
        # A number of 64 bits is a text in the JSON of protobuf.
        partial_success = {counted: str(count), "errorMessage": message}
        return answer({"partialSuccess": partial_success} if count else {})
    # Those of logs and metrics have the same fields.
    response = ExportTraceServiceResponse()
    if count:
        response.partial_success.rejected_spans = count
        response.partial_success.error_message = message
    return Response(response.SerializeToString(), media_type=PROTOBUF)
