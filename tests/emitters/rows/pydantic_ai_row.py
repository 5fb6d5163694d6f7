from cases import flush, otel, run
from pydantic_ai import Agent
from pydantic_cases import LIBRARIES, pydantic_cases

tracer = otel()
Agent.instrument_all()
run(pydantic_cases(tracer), flush, libraries=LIBRARIES)
