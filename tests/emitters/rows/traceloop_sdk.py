import contextlib

from cases import flush, run
from openai_cases import cases
from opentelemetry import context, trace
from traceloop.sdk import Traceloop

Traceloop.init(app_name="traceloop")
tracer = trace.get_tracer("program")


@contextlib.contextmanager
def session(name):
    token = context.attach(context.get_current())
    try:
        Traceloop.set_association_properties({"session_id": name})
        with tracer.start_as_current_span("turn"):
            yield
    finally:
        context.detach(token)


run(cases(session), flush, libraries=["traceloop-sdk", "opentelemetry-instrumentation-openai", "openai"])
