from cases import flush, otel, run
from llama_index_cases import LIBRARIES, llama_index_cases
from opentelemetry.instrumentation.genai.llama_index import LlamaIndexInstrumentor
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

otel()
LlamaIndexInstrumentor().instrument()
# The calls of models are left to the client's own library.
OpenAIInstrumentor().instrument()
run(
    llama_index_cases(),
    flush,
    libraries=[
        "opentelemetry-instrumentation-genai-llama-index",
        "opentelemetry-instrumentation-genai-openai",
        *LIBRARIES,
    ],
)
