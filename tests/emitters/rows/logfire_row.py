import logfire
import openai_cases
import pydantic_cases
from cases import flush, run

logfire.configure(send_to_logfire=False, console=False)
logfire.instrument_pydantic_ai()
logfire.instrument_openai()
agents = [case for case in pydantic_cases.cases() if case.__name__ in ("tools", "cached")]
for case in agents:
    case.__name__ = f"agent_{case.__name__}"
run(
    (*openai_cases.cases(), *agents),
    lambda: (logfire.force_flush(), flush()),
    libraries=["logfire", *pydantic_cases.LIBRARIES],
)
