from cases import flush, otel, run
from openai_agents_cases import CASES, LIBRARIES
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

otel()
OpenAIAgentsInstrumentor().instrument(exclusive_processor=True)
run(CASES, flush, libraries=["openinference-instrumentation-openai-agents", *LIBRARIES])
