from cases import flush, otel, run
from pydantic_ai import Agent
from pydantic_cases import LIBRARIES, cases

otel()
Agent.instrument_all()
run(cases(), flush, libraries=LIBRARIES)
