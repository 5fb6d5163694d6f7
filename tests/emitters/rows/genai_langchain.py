from cases import flush, otel, run
from langchain_cases import LIBRARIES, langchain_cases
from opentelemetry.instrumentation.genai.langchain import LangChainInstrumentor

otel()
LangChainInstrumentor().instrument()
run(langchain_cases(), flush, libraries=["opentelemetry-instrumentation-genai-langchain", *LIBRARIES])
