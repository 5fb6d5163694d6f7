"""The rows: each a library that sends traces, with its environment, its script and its switches."""

from collections.abc import Mapping
from typing import NamedTuple

SPANS = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
}
GENAI, INFERENCE = "opentelemetry.instrumentation.genai", "openinference.instrumentation"
CLIENT = f"{GENAI}.openai"
"""To the client's own library two frameworks leave the calls of models."""
LOGS = SPANS | {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "EVENT_ONLY"}


class Row(NamedTuple):
    """`environment` is one of `requirements/`, `script` a file of `rows/` with its arguments.

    `switches` are variables.
    """

    name: str
    environment: str
    script: str
    switches: Mapping[str, str] = {}


ROWS = (
    # Before the conventions had messages as attributes: content comes as log records.
    Row(
        "openai-v2",
        "openai-v2",
        "instrumented.py openai opentelemetry.instrumentation.openai_v2",
        {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"},
    ),
    Row(
        "openai-v2-latest",
        "openai-v2",
        "instrumented.py openai opentelemetry.instrumentation.openai_v2",
        SPANS,
    ),
    Row("genai-openai", "genai-openai", f"instrumented.py openai {GENAI}.openai", SPANS),
    Row("genai-openai-logs", "genai-openai", f"instrumented.py openai {GENAI}.openai", LOGS),
    Row("genai-anthropic", "genai-anthropic", f"instrumented.py anthropic {GENAI}.anthropic", SPANS),
    Row(
        "openinference-anthropic",
        "openinference-anthropic",
        f"instrumented.py anthropic {INFERENCE}.anthropic",
    ),
    # With an older client, which sends no spans of its own.
    Row(
        "traceloop-anthropic",
        "traceloop-anthropic",
        "instrumented.py anthropic opentelemetry.instrumentation.anthropic",
    ),
    Row("logfire-anthropic", "logfire-anthropic", "logfire_anthropic.py"),
    Row("openinference-openai", "openinference-openai", f"instrumented.py openai {INFERENCE}.openai"),
    Row("openinference-langchain", "langchain", f"instrumented.py langchain {INFERENCE}.langchain"),
    Row("genai-langchain", "langchain", f"instrumented.py langchain {GENAI}.langchain", SPANS),
    Row("openinference-llama-index", "llama-index", f"instrumented.py llama_index {INFERENCE}.llama_index"),
    Row(
        "genai-llama-index", "llama-index", f"instrumented.py llama_index {GENAI}.llama_index {CLIENT}", SPANS
    ),
    Row(
        "openinference-openai-agents",
        "openai-agents",
        f"instrumented.py openai_agents {INFERENCE}.openai_agents",
    ),
    Row(
        "genai-openai-agents",
        "openai-agents",
        f"instrumented.py openai_agents {GENAI}.openai_agents {CLIENT}",
        SPANS,
    ),
    Row("pydantic-ai", "pydantic-ai", "pydantic_ai_row.py"),
    Row("logfire", "logfire", "logfire_row.py"),
    Row("traceloop", "traceloop", "traceloop_sdk.py"),
    Row("strands", "strands", "strands_row.py"),
    Row("strands-latest", "strands", "strands_row.py", SPANS),
    Row("openinference-smolagents", "smolagents", "smolagents_row.py"),
    Row("langfuse", "langfuse", "langfuse_row.py"),
    Row("vercel", "vercel", "vercel.mjs"),
    Row("vercel-legacy", "vercel", "vercel.mjs", {"LEGACY": "1"}),
    Row("google-adk", "google-adk", "google_adk.py", SPANS),
    Row("openlit", "openlit", "openlit_row.py"),
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
