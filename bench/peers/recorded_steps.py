"""Steps that a peer records with its defaults: `python -m bench.peers.recorded_steps PEER URL`."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.answering import Message, answer

said = ""


def work(messages: list[dict[str, Any]]) -> str:
    return said


class Recorded(NamedTuple):
    work: Callable[[list[dict[str, Any]]], str]
    around: Callable[[Callable[[], int]], Callable[[], int]]
    """Makes a function the first step of a trace."""
    flush: Callable[[], object]


def opentelemetry_sdk(address: str) -> Recorded:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{address}/v1/traces")))
    tracer = provider.get_tracer("bench")

    def recorded(messages: list[dict[str, Any]]) -> str:
        with tracer.start_as_current_span("work") as span:
            span.set_attribute("input.value", json.dumps({"messages": messages}))
            result = work(messages)
            span.set_attribute("output.value", json.dumps(result))
            return result

    return Recorded(recorded, tracer.start_as_current_span("bench"), lambda: provider.force_flush(60_000))


def langfuse(address: str) -> Recorded:
    from langfuse import Langfuse, observe

    client = Langfuse(public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url=address)
    return Recorded(observe(work), observe(name="bench"), client.flush)


def logfire(address: str) -> Recorded:
    import logfire

    logfire.configure(token="bench", console=False, advanced=logfire.AdvancedOptions(base_url=address))

    def recorded(messages: list[dict[str, Any]]) -> str:
        with logfire.span("work", messages=messages) as span:
            result = work(messages)
            span.set_attribute("result", result)
            return result

    return Recorded(recorded, logfire.instrument("bench"), logfire.force_flush)


def mlflow(address: str) -> Recorded:
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Without it nothing is traced, and nothing says so.
        "MLFLOW_TRACKING_URI": address,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{address}/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    }
    import mlflow
    from mlflow.tracing.provider import provider

    return Recorded(
        mlflow.trace(work), mlflow.trace(name="bench"), lambda: provider.get().force_flush(60_000)
    )


recorded: Recorded = globals()[sys.argv[1].replace("-", "_")](sys.argv[2])


def measure(message: Message) -> Message:
    """Microseconds a step, of this thread alone."""
    global said
    steps, messages, said = message["steps"], message["messages"], message["answer"]
    step = recorded.work

    def all_steps() -> int:
        began_ns = time.thread_time_ns()
        for _ in range(steps):
            step(messages)
        return time.thread_time_ns() - began_ns

    spent_ns = recorded.around(all_steps)()
    recorded.flush()
    return {"us": spent_ns / steps / 1000}


if __name__ == "__main__":
    answer(measure)
