import logfire
from cases import flush, run
from openai_cases import openai_cases
from opentelemetry import trace
from pydantic_cases import LIBRARIES, pydantic_cases

logfire.configure(send_to_logfire=False, console=False)
logfire.instrument_pydantic_ai()
logfire.instrument_openai()
tracer = trace.get_tracer("program")
agents = {
    f"agent_{name}": case for name, case in pydantic_cases(tracer).items() if name in ("tools", "cached")
}
run(
    openai_cases(tracer) | agents,
    lambda: (logfire.force_flush(), flush()),
    libraries=["logfire", *LIBRARIES],
)
