"""Runs the cases of a row, one after the other, and says on stdout what came of each.

Only the standard library: each row has an environment of its own. The tool answers each line on stdin,
so that it knows to which case a request to the model and an export belong.
"""

import asyncio
import contextlib
import gc
import inspect
import json
import sys
import traceback
from importlib import metadata


def say(**line):
    # A library may have printed something, and no end of line.
    sys.stdout.write("\n@@" + json.dumps(line) + "\n")
    sys.stdout.flush()


def run(cases, flush, *, libraries, cannot=None):
    """Runs functions, each a case; `flush` sends all spans; `cannot` says why a case is not there."""
    say(versions={name: metadata.version(name) for name in libraries}, cannot=cannot or {})
    # One for all: clients keep connections to the model, and these belong to a loop.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    for case in cases:
        name = case.__name__
        say(begin=name)
        sys.stdin.readline()
        error = None
        try:
            if inspect.isawaitable(answer := case()):
                loop.run_until_complete(answer)
        except Exception:  # noqa: BLE001 - the tool shows it, and the next case is tried.
            error = traceback.format_exc()
        # Streams that nobody holds any more end their spans now.
        gc.collect()
        try:
            flush()
        except Exception:  # noqa: BLE001 - likewise.
            error = (error or "") + traceback.format_exc()
        say(end=name, error=error)
        sys.stdin.readline()


def otel():
    """Sends spans and logs by OTLP as the environment says; the tracer is for spans of the program itself.

    `opentelemetry-instrument` has done it already where it started this program.
    """
    from opentelemetry import trace
    from opentelemetry.sdk import trace as sdk

    if not isinstance(trace.get_tracer_provider(), sdk.TracerProvider):
        from opentelemetry._logs import set_logger_provider
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = sdk.TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        logs = LoggerProvider()
        logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        set_logger_provider(logs)
    return trace.get_tracer("program")


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def questions(ask):
    """The cases of one question each, which `ask` asks."""

    def chat():
        return ask("What is the weather?")

    def tools():
        return ask("The weather of Oslo and Lima? [tools]")

    def cached():
        return ask("Think of the weather. [cached]")

    return chat, tools, cached


def fanned_out(ask):
    """The case of three questions at once, which `ask` asks on asyncio."""

    async def fanout():
        from opentelemetry import trace

        with trace.get_tracer("program").start_as_current_span("fan out"):
            await asyncio.gather(*(ask(f"Weather {number}? [tools]") for number in range(3)))

    return fanout


@contextlib.contextmanager
def own_session(name):
    """The calls inside belong to a session, as a span of the program tells."""
    from opentelemetry import trace

    with trace.get_tracer("program").start_as_current_span("turn", attributes={"session.id": name}):
        yield


def flush():
    from opentelemetry import trace
    from opentelemetry._logs import get_logger_provider

    for provider in (trace.get_tracer_provider(), get_logger_provider()):
        if hasattr(provider, "force_flush"):
            provider.force_flush()
