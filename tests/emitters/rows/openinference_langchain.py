from cases import flush, otel, run
from langchain_cases import LIBRARIES, langchain_cases
from openinference.instrumentation.langchain import LangChainInstrumentor

otel()
LangChainInstrumentor().instrument()
run(langchain_cases(), flush, libraries=["openinference-instrumentation-langchain", *LIBRARIES])
