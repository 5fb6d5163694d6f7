"""The rows: each a library that sends traces, with its environment, its script and its switches."""

from typing import NamedTuple

SPANS = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
}
LOGS = SPANS | {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "EVENT_ONLY"}


class Row(NamedTuple):
    """`script` is a file of `rows/`, `environment` one of `requirements/`, `switches` are variables."""

    name: str
    environment: str
    script: str
    switches: dict[str, str]


ROWS = (
    # Before the conventions had messages as attributes: content comes as log records.
    Row(
        "openai-v2",
        "openai-v2",
        "openai_v2.py",
        {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"},
    ),
    Row("openai-v2-latest", "openai-v2", "openai_v2.py", SPANS),
    Row("genai-openai", "genai-openai", "genai_openai.py", SPANS),
    Row("genai-openai-logs", "genai-openai", "genai_openai.py", LOGS),
    Row("genai-anthropic", "genai-anthropic", "genai_anthropic.py", SPANS),
    Row("openinference-anthropic", "openinference-anthropic", "openinference_anthropic.py", {}),
    # With an older client, which sends no spans of its own.
    Row("traceloop-anthropic", "traceloop-anthropic", "traceloop_anthropic.py", {}),
    Row("logfire-anthropic", "logfire-anthropic", "logfire_anthropic.py", {}),
    Row("openinference-openai", "openinference-openai", "openinference_openai.py", {}),
    Row("openinference-langchain", "langchain", "openinference_langchain.py", {}),
    Row("genai-langchain", "langchain", "genai_langchain.py", SPANS),
    Row("openinference-llama-index", "llama-index", "openinference_llama_index.py", {}),
    Row("genai-llama-index", "llama-index", "genai_llama_index.py", SPANS),
    Row("openinference-openai-agents", "openai-agents", "openinference_openai_agents.py", {}),
    Row("genai-openai-agents", "openai-agents", "genai_openai_agents.py", SPANS),
    Row("pydantic-ai", "pydantic-ai", "pydantic_ai_row.py", {}),
    Row("logfire", "logfire", "logfire_row.py", {}),
    Row("traceloop", "traceloop", "traceloop_sdk.py", {}),
    Row("strands", "strands", "strands_row.py", {}),
    Row("strands-latest", "strands", "strands_row.py", SPANS),
    Row("openinference-smolagents", "smolagents", "smolagents_row.py", {}),
    Row("langfuse", "langfuse", "langfuse_row.py", {}),
    Row("vercel", "vercel", "vercel.mjs", {}),
    Row("vercel-legacy", "vercel", "vercel.mjs", {"LEGACY": "1"}),
    Row("google-adk", "google-adk", "google_adk.py", SPANS),
    Row("openlit", "openlit", "openlit_row.py", {}),
    Row("agent-framework", "agent-framework", "agent_framework_row.py", {"ENABLE_SENSITIVE_DATA": "true"}),
    Row(
        "litellm",
        "litellm",
        "litellm_row.py",
        {
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
            "OTEL_EXPORTER": "otlp_http",
            "USE_OTEL_LITELLM_REQUEST_SPAN": "true",
        },
    ),
    Row(
        "langsmith",
        "langsmith",
        "langsmith_otel.py",
        {"LANGSMITH_TRACING": "true", "LANGSMITH_TRACING_MODE": "otel"},
    ),
)
