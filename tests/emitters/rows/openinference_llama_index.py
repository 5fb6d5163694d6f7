from cases import flush, otel, run
from llama_index_cases import LIBRARIES, llama_index_cases
from openinference.instrumentation import using_session
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

otel()
LlamaIndexInstrumentor().instrument()
run(
    llama_index_cases(session=using_session),
    flush,
    libraries=["openinference-instrumentation-llama-index", *LIBRARIES],
)
