"""Spans as exporters send them over HTTP. Peers use this file too: it needs `opentelemetry-proto` alone."""

import http.client
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

BATCH = 512
"""As the batch processor of OpenTelemetry's SDKs sends them."""
SENDERS = 4
PER_TRACE = 1000
"""Spans of a trace, a tree of agents, calls of models and tools."""
SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog does not mind. "


def bodies(count: int) -> tuple[list[bytes], list[str]]:
    """Requests with so many spans, and the ids of their traces."""
    began_ns = time.time_ns() - 3600 * 10**9
    requests, traces = [], []
    request, scope = _request()
    for number in range(count):
        in_trace = number % PER_TRACE
        if in_trace == 0:
            traces.append(uuid4().hex)
        if len(scope.spans) == BATCH:
            requests.append(request.SerializeToString())
            request, scope = _request()
        _add(scope, traces[-1], in_trace, began_ns + number * 100_000)
    requests.append(request.SerializeToString())
    return requests, traces


def send(address: str, requests: Sequence[bytes], headers: dict[str, str]) -> None:
    """Sends them on some connections; returns once all are acknowledged. Raises ValueError if one is not."""
    parts = urlsplit(address)
    left = list(reversed(requests))
    failures: list[str] = []

    def work() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)
        try:
            while left and not failures:
                try:
                    body = left.pop()
                except IndexError:
                    return
                while True:
                    connection.request("POST", "/v1/traces", body, headers)
                    answer = connection.getresponse()
                    said = answer.read()
                    # A server that is full says when to come back; how long that takes is part of the figure.
                    if answer.status not in (429, 503):
                        break
                    time.sleep(0.1)
                if answer.status != 200 or said:
                    failures.append(f"{answer.status} {said[:300]!r}")
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise ValueError(f"spans were answered with {failures[0]}")


def _request() -> tuple[ExportTraceServiceRequest, Any]:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    _put(of_resource.resource.attributes, "service.name", "bench")
    scope = of_resource.scope_spans.add()
    scope.scope.name = "opentelemetry.instrumentation.openai_v2"
    scope.scope.version = "2.1"
    return request, scope


def _add(scope: Any, trace_id: str, number: int, start_ns: int) -> None:
    span = scope.spans.add()
    span.trace_id = bytes.fromhex(trace_id)
    span.span_id = (int(trace_id[:10], 16) << 20 | number + 1).to_bytes(8, "big")
    if number:
        # A tree of agents with ten spans each.
        parent = 0 if number % 10 == 1 or number < 10 else number - (number - 1) % 10
        span.parent_span_id = (int(trace_id[:10], 16) << 20 | parent + 1).to_bytes(8, "big")
    span.kind = 3
    span.start_time_unix_nano, span.end_time_unix_nano = start_ns, start_ns + 90_000
    if number == 0 or number % 10 == 1:
        span.name = "invoke_agent planner"
        _put(span.attributes, "gen_ai.operation.name", "invoke_agent")
        _put(span.attributes, "gen_ai.agent.name", "planner")
    elif number % 2:
        span.name = "execute_tool look_up"
        _put(span.attributes, "gen_ai.operation.name", "execute_tool")
        _put(span.attributes, "gen_ai.tool.name", "look_up")
        _put(span.attributes, "gen_ai.tool.call.id", f"call-{number}")
        _put(span.attributes, "gen_ai.tool.call.arguments", '{"text": "' + SENTENCE + '"}')
        _put(span.attributes, "gen_ai.tool.call.result", '{"found": "' + SENTENCE + '"}')
    else:
        span.name = "chat gpt-5.2"
        message = '[{"role": "%s", "parts": [{"type": "text", "content": "' + SENTENCE + '"}]%s}]'
        _put(span.attributes, "gen_ai.operation.name", "chat")
        _put(span.attributes, "gen_ai.provider.name", "openai")
        _put(span.attributes, "gen_ai.request.model", "gpt-5.2")
        _put(span.attributes, "gen_ai.response.model", "gpt-5.2-2026-01-01")
        _put(span.attributes, "gen_ai.response.id", f"resp-{trace_id[:8]}-{number}")
        _put(span.attributes, "gen_ai.usage.input_tokens", 120)
        _put(span.attributes, "gen_ai.usage.output_tokens", 30)
        _put(span.attributes, "gen_ai.input.messages", message % ("user", ""))
        _put(span.attributes, "gen_ai.output.messages", message % ("assistant", ', "finish_reason": "stop"'))


def _put(attributes: Any, key: str, value: str | int) -> None:
    attribute = attributes.add()
    attribute.key = key
    if isinstance(value, str):
        attribute.value.string_value = value
    else:
        attribute.value.int_value = value
