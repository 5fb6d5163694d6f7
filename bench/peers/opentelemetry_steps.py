"""Spans of OpenTelemetry's SDK with the same content: `python -m bench.peers.opentelemetry_steps URL`."""

import json
import sys
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from bench.answering import Message, answer

provider = TracerProvider()
provider.add_span_processor(
    BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sys.argv[1]}/v1/traces"), max_queue_size=1_000_000)
)

tracer = provider.get_tracer("bench")


def measure(message: Message) -> Message:
    steps, messages, said = message["steps"], message["messages"], message["answer"]
    with tracer.start_as_current_span("bench"):
        began_ns = time.thread_time_ns()
        for _ in range(steps):
            with tracer.start_as_current_span("work") as span:
                span.set_attribute("input.value", json.dumps({"messages": messages}))
                span.set_attribute("output.value", json.dumps(said))
        spent_ns = time.thread_time_ns() - began_ns
    provider.force_flush(60_000)
    return {"us": spent_ns / steps / 1000}


if __name__ == "__main__":
    answer(measure)
