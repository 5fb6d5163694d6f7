"""Spans and logs as libraries send them, written from their sources, and what they must be read as.

What `tests/fixtures/otlp` has of real ones is not told again: `sent_by` gives it.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from runglass.recording.otlp import Signal
from runglass.recording.received import ReceivedLog, ReceivedSpan, Refused, SpanEvent, SpanLink
from tests.emitters import fixtures
from tests.otlp_standard import items_of

START_NS = 1_790_000_000_000_000_000
NOW = START_NS + 250_000_000


def span(
    attributes: dict[str, Any], *events: tuple[str, dict[str, Any]], scope: str = "", **fields: Any
) -> ReceivedSpan:
    told: dict[str, Any] = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "parent_id": "00f067aa0ba902b7",
        "name": "a span",
        "kind": 1,
        "start_ns": START_NS,
        "end_ns": START_NS + 1_500_000_000,
        "status": 0,
        "status_message": "",
        "attributes": attributes,
        "events": [SpanEvent(NOW, name, said) for name, said in events],
        "links": [],
        "scope": scope,
        "scope_version": "",
        "resource": {},
    }
    return ReceivedSpan(**(told | fields))


def log(name: str, body: Any, attributes: dict[str, Any] | None = None, **fields: Any) -> ReceivedLog:
    told: dict[str, Any] = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "at_ns": NOW,
        "name": name,
        "body": body,
        "severity": 9,
        "attributes": attributes or {},
        "scope": "",
        "scope_version": "",
        "resource": {},
    }
    return ReceivedLog(**(told | fields))


def sent_by(row: str) -> Iterator[tuple[str, ReceivedSpan | ReceivedLog]]:
    """All that a library has sent, each with the name of its case."""
    for case in fixtures.read(row).cases:
        for path, headers, body in case.exports:
            if not path.endswith("/metrics"):
                body = gzip.decompress(body) if "Content-Encoding" in headers else body
                signal: Signal = "logs" if path.endswith("/logs") else "traces"
                for item in items_of(body, signal, is_json="json" in headers.get("Content-Type", "")):
                    if not isinstance(item, Refused):
                        yield case.name, item


class Case(NamedTuple):
    """`state` and `call` have the fields that must be there with this value, None for one that must not."""

    sent: ReceivedSpan | ReceivedLog
    state: dict[str, Any]
    call: Mapping[str, Any] = MappingProxyType({})


WEATHER = {"name": "get_weather", "arguments": '{"city":"Paris"}'}
ASKED: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather in Paris?"},
    {"role": "assistant", "toolCalls": [{"id": "call_1", "type": "function", "function": WEATHER}]},
    {"role": "tool", "content": "rainy, 57°F", "toolCallId": "call_1"},
]
"""The conversation that most of the spans are of, as a model call of ours has it."""
ANSWER: dict[str, Any] = {"role": "assistant", "content": "It rains."}
PARTS: list[dict[str, Any]] = [
    {"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]},
    {
        "role": "assistant",
        "parts": [
            {"type": "tool_call", "id": "call_1", "name": "get_weather", "arguments": {"city": "Paris"}}
        ],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "rainy, 57°F"}]},
]
ANSWER_PARTS = [
    {"role": "assistant", "parts": [{"type": "text", "content": "It rains."}], "finish_reason": "stop"}
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Tells it.", "parameters": SCHEMA},
}
OPENAI_CALLS = [{"id": "call_1", "type": "function", "function": WEATHER}]
OPENAI_MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": OPENAI_CALLS},
    {"role": "tool", "tool_call_id": "call_1", "content": "rainy, 57°F"},
]
REQUEST: dict[str, Any] = {"system": "Be brief.", "messages": ASKED}


def flat(prefix: str, value: Any) -> dict[str, Any]:
    """Nested values with an attribute for each leaf, by index."""
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in flat(f"{prefix}.{name}", inner).items()}
    if isinstance(value, list):
        return {k: v for n, inner in enumerate(value) for k, v in flat(f"{prefix}.{n}", inner).items()}
    return {} if value is None else {prefix: value}


CASES: dict[str, Case] = {}

# --- The conventions of OpenTelemetry, the newest first.

CASES["newest"] = Case(
    span(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.request.temperature": 0.2,
            "gen_ai.request.max_tokens": 100,
            "gen_ai.request.seed": 7,
            "gen_ai.request.stop_sequences": ["END"],
            "gen_ai.request.stream": True,
            "gen_ai.response.time_to_first_chunk": 0.4,
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.usage.reasoning.output_tokens": 8,
            "gen_ai.conversation.id": "conv_1",
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
            "gen_ai.input.messages": json.dumps(PARTS),
            "gen_ai.output.messages": json.dumps(ANSWER_PARTS),
            "gen_ai.tool.definitions": json.dumps(
                [
                    {
                        "type": "function",
                        "name": "get_weather",
                        "description": "Tells it.",
                        "parameters": SCHEMA,
                    }
                ]
            ),
            "server.address": "api.openai.com",
            "server.port": 443,
        },
        name="chat gpt-4o-mini",
        kind=3,
        scope="opentelemetry.instrumentation.genai.openai",
        scope_version="1.3b0",
        resource={"service.name": "shop", "service.version": "1.2", "deployment.environment.name": "prod"},
        links=[SpanLink("1" * 32, "2" * 16, {})],
    ),
    {
        "kind": "llm",
        "isGenAi": True,
        "name": "chat gpt-4o-mini",
        "spanId": "b7ad6b7169203331",
        "parentSpanId": "00f067aa0ba902b7",
        "startTimeUnixNano": "1790000000000000000",
        "endTimeUnixNano": "1790000001500000000",
        "status": None,
        "session": "conv_1",
        "service": "shop",
        "release": "1.2",
        "environment": "prod",
        "scope": "opentelemetry.instrumentation.genai.openai 1.3b0",
        "tokens": {"prompt": 100, "completion": 20, "total": 120},
        "costUsd": "0.000024",
        "modelUsed": "gpt-4o-mini-2024-07-18",
        "links": [{"traceId": "1" * 32, "spanId": "2" * 16}],
        "attributes": {"server.address": "api.openai.com", "server.port": 443},
    },
    {
        "number": 1,
        "model": "openai:gpt-4o-mini",
        "provider": "openai",
        "modelUsed": "gpt-4o-mini-2024-07-18",
        "startedAt": "2026-09-21T14:13:20.000Z",
        "durationMs": 1500,
        "timeToFirstTokenMs": 400,
        "streamed": True,
        "finishReason": "stop",
        "requestId": "chatcmpl-1",
        "tokens": {"prompt": 100, "completion": 20, "total": 120},
        "cachedTokens": 40,
        "cacheWriteTokens": None,
        "reasoningTokens": 8,
        # 60 x 0.15 + 40 x 0.075 + 20 x 0.60 for a million.
        "costUsd": "0.000024",
        "costUnknown": None,
        "request": REQUEST
        | {
            "tools": [TOOL],
            "settings": {"temperature": 0.2, "max_tokens": 100, "seed": 7, "stop_sequences": ["END"]},
        },
        "response": ANSWER,
    },
)
CASES["newest, an error"] = Case(
    span(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "error.type": "RateLimitError",
        },
        (
            "exception",
            {
                "exception.type": "openai.RateLimitError",
                "exception.message": "slow down",
                "exception.stacktrace": "…",
            },
        ),
        status=2,
        status_message="429",
    ),
    {
        "status": "error",
        "error": {"code": "RateLimitError", "message": "429", "traceback": "…"},
        "events": [
            {
                "at": str(NOW),
                "name": "exception",
                "attributes": {
                    "exception.type": "openai.RateLimitError",
                    "exception.message": "slow down",
                },
            }
        ],
        "tokens": None,
        "costUsd": None,
        "attributes": None,
    },
    {"errorCode": "RateLimitError", "costUnknown": "no_usage", "tokens": None, "costUsd": None},
)
CASES["newest, an agent"] = Case(
    span(
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "Math Tutor",
            "gen_ai.agent.id": "asst_5",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.conversation.id": "conv_1",
            "user.id": "u1",
            "gen_ai.input.messages": json.dumps(PARTS),
            "gen_ai.output.messages": json.dumps(ANSWER_PARTS),
        },
        name="invoke_agent Math Tutor",
    ),
    {
        "kind": "agent",
        "entryName": "Math Tutor",
        "session": "conv_1",
        "user": "u1",
        "input": {"messages": ASKED},
        "output": {"text": "It rains."},
        "modelCalls": None,
        "tokens": None,
        "attributes": {
            "gen_ai.agent.id": "asst_5",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.finish_reasons": ["stop"],
        },
    },
)
CASES["newest, a workflow"] = Case(
    span({"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "triage"}),
    {"kind": "chain", "entryName": "triage", "attributes": {"gen_ai.operation.name": "invoke_workflow"}},
)
CASES["newest, a retrieval"] = Case(
    span(
        {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": "H7",
            "gen_ai.retrieval.query.text": "capital of France",
            "gen_ai.retrieval.documents": '[{"id":"d1","score":0.95}]',
        }
    ),
    {
        "kind": "retrieval",
        "input": {"query": "capital of France"},
        "output": {"documents": [{"id": "d1", "score": 0.95}]},
        "attributes": {"gen_ai.data_source.id": "H7"},
    },
)
CASES["newest, an embedding"] = Case(
    span(
        {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "text-embedding-3-small",
            "gen_ai.embeddings.dimension.count": 512,
            "gen_ai.usage.input_tokens": 1000,
        }
    ),
    {"kind": "embedding", "attributes": {"gen_ai.embeddings.dimension.count": 512}},
    {
        "model": "openai:text-embedding-3-small",
        "tokens": {"prompt": 1000, "completion": 0, "total": 1000},
        "costUsd": "0.00002",
    },
)
CASES["1.27: details in two events"] = Case(
    span(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.prompt_tokens": 10,
            "gen_ai.usage.completion_tokens": 5,
        },
        ("gen_ai.content.prompt", {"gen_ai.prompt": json.dumps(OPENAI_MESSAGES)}),
        ("gen_ai.content.completion", {"gen_ai.completion": json.dumps([ANSWER])}),
    ),
    {"kind": "llm", "events": None, "attributes": None},
    {"tokens": {"prompt": 10, "completion": 5, "total": 15}, "request": REQUEST, "response": ANSWER},
)
CASES["1.36: a log for each message"] = Case(
    log("gen_ai.user.message", {"content": "Weather in Paris?"}, {"gen_ai.system": "openai"}),
    {"name": None, "kind": "llm", "isGenAi": True, "attributes": None, "events": None},
    {
        "model": "",
        "costUnknown": None,
        "request": {"messages": [ASKED[0] | {"at": str(NOW)}]},
        "response": None,
    },
)
CASES["1.36: a log of a tool's answer"] = Case(
    log(
        "gen_ai.tool.message",
        {"id": "call_1", "content": "rainy, 57°F"},
        {"event.name": "gen_ai.tool.message"},
    ),
    {"kind": "llm", "attributes": None},
    {"request": {"messages": [ASKED[2] | {"at": str(NOW)}]}},
)
CASES["1.36: a log of the choice"] = Case(
    log(
        "gen_ai.choice",
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "tool_calls": OPENAI_CALLS},
        },
    ),
    {"kind": "llm"},
    {
        "finishReason": "tool_call",
        "response": {"role": "assistant", "content": None, "toolCalls": ASKED[1]["toolCalls"]},
        "request": None,
    },
)
CASES["a log of anything else"] = Case(
    log("exception", None, {"exception.type": "ValueError"}, severity=17),
    {
        "kind": None,
        "modelCalls": None,
        "isGenAi": None,
        "events": [
            {
                "at": str(NOW),
                "name": "exception",
                "severity": 17,
                "attributes": {"exception.type": "ValueError"},
            }
        ],
    },
)

# --- OpenInference.

CASES["openinference: parts of a message"] = Case(
    span(
        {
            "openinference.span.kind": "LLM",
            "llm.provider": "anthropic",
            "llm.model_name": "claude-sonnet-4-5",
            **flat(
                "llm.input_messages.0.message",
                {
                    "role": "user",
                    "contents": [
                        {"message_content": {"type": "text", "text": "What is it?"}},
                        {
                            "message_content": {
                                "type": "image",
                                "image": {"image": {"url": "https://x/y.png"}},
                            }
                        },
                    ],
                },
            ),
        }
    ),
    {"attributes": None},
    {
        "request": {
            "messages": [
                {"role": "user", "content": "What is it?", "attachments": [{"url": "https://x/y.png"}]}
            ]
        }
    },
)
CASES["openinference: a retriever"] = Case(
    span(
        {
            "openinference.span.kind": "RETRIEVER",
            "input.value": "capital of France",
            "retrieval.documents.0.document.id": "d1",
            "retrieval.documents.0.document.content": "Paris",
            "retrieval.documents.0.document.score": 0.9,
            "retrieval.documents.0.document.metadata": '{"page": 3}',
            "retrieval.documents.1.document.content": "Lyon",
        }
    ),
    {
        "kind": "retrieval",
        "input": {"text": "capital of France"},
        "output": {
            "documents": [
                {"id": "d1", "content": "Paris", "score": 0.9, "metadata": {"page": 3}},
                {"content": "Lyon"},
            ]
        },
        "attributes": None,
    },
)


# --- OpenLLMetry, of before 0.5 and after.

CASES["traceloop: by index"] = Case(
    span(
        {
            "llm.request.type": "chat",
            "gen_ai.system": "OpenAI",
            "gen_ai.request.model": "gpt-4o-mini",
            "llm.is_streaming": False,
            "traceloop.workflow.name": "triage",
            "traceloop.association.properties.session_id": "s1",
            "traceloop.association.properties.tier": "gold",
            "llm.request.functions.0.name": "get_weather",
            "llm.request.functions.0.description": "Tells it.",
            "llm.request.functions.0.parameters": json.dumps(SCHEMA),
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": '[{"type": "text", "text": "Weather in Paris?"}]',
            **flat("gen_ai.prompt.1", {"role": "assistant", "tool_calls": [{"id": "call_1", **WEATHER}]}),
            "gen_ai.prompt.2.role": "tool",
            "gen_ai.prompt.2.tool_call_id": "call_1",
            "gen_ai.prompt.2.content": "rainy, 57°F",
            "gen_ai.prompt.prompt_filter_results": "[]",
        },
        scope="opentelemetry.instrumentation.openai.v1",
    ),
    {
        "kind": "llm",
        "session": "s1",
        "entryName": None,
        "attributes": {
            "traceloop.workflow.name": "triage",
            "traceloop.association.properties.tier": "gold",
            "gen_ai.prompt.prompt_filter_results": "[]",
        },
    },
    {"model": "openai:gpt-4o-mini", "streamed": False, "request": {"messages": ASKED, "tools": [TOOL]}},
)

# --- Langfuse.

CASES["langfuse: a generation"] = Case(
    span(
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "claude-sonnet-4-5",
            "langfuse.observation.model.parameters": '{"temperature": 0.2}',
            "langfuse.observation.input": json.dumps(OPENAI_MESSAGES),
            "langfuse.observation.output": json.dumps(ANSWER),
            # What its handler for LangChain makes of 1,000 with 900 from and for the cache.
            "langfuse.observation.usage_details": json.dumps(
                {"input": 100, "output": 80, "total": 1100, "input_cache_read": 600}
                | {"input_cache_creation": 300, "output_reasoning": 20}
            ),
            "langfuse.observation.cost_details": '{"input": 0.001, "output": 0.002}',
            "langfuse.observation.completion_start_time": '"2026-09-21T14:13:20.400000Z"',
            "langfuse.observation.metadata.k": "v",
            "langfuse.observation.level": "DEFAULT",
            "langfuse.environment": "prod",
            "langfuse.release": "v7",
            "session.id": "s1",
            "user.id": "u1",
            "langfuse.trace.tags": ["b", "a"],
            "langfuse.trace.name": "chat",
        },
        scope="langfuse-sdk",
    ),
    {
        "kind": "llm",
        "session": "s1",
        "user": "u1",
        "tags": ["a", "b"],
        "environment": "prod",
        "release": "v7",
        "costUsd": "0.003",
    },
    {
        "model": "claude-sonnet-4-5",
        "provider": None,
        "timeToFirstTokenMs": 400,
        "tokens": {"prompt": 1000, "completion": 100, "total": 1100},
        "cachedTokens": 600,
        "cacheWriteTokens": 300,
        "reasoningTokens": 20,
        "costUsd": "0.003",
        "listCostUsd": "0.003105",
        "request": REQUEST | {"settings": {"temperature": 0.2}},
        "response": ANSWER,
        "note": None,
    },
)
CASES["langfuse: a failed span"] = Case(
    span(
        {
            "langfuse.observation.type": "span",
            "langfuse.observation.level": "ERROR",
            "langfuse.observation.status_message": "no luck",
            "langfuse.observation.input": "hi",
            "langfuse.trace.input": "hi",
        },
        scope="langfuse-sdk",
    ),
    {
        "kind": "code",
        "isGenAi": True,
        "status": "error",
        "error": {"code": "ERROR", "message": "no luck"},
        "input": {"text": "hi"},
        "attributes": {"langfuse.observation.level": "ERROR"},
    },
)

# --- LangSmith.

CASES["langsmith: a retriever"] = Case(
    span(
        {
            "langsmith.span.kind": "retriever",
            "gen_ai.operation.name": "embeddings",
            "gen_ai.prompt": '{"query":"q"}',
        }
    ),
    {"kind": "retrieval", "input": {"query": "q"}, "attributes": {"gen_ai.operation.name": "embeddings"}},
)


# --- Logfire.

CASES["logfire: a span that begins"] = Case(
    span(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "logfire.msg": "chat",
            "logfire.span_type": "pending_span",
            "logfire.pending_parent_id": "00f067aa0ba902b7",
            "logfire.tags": ["a"],
        },
        span_id="1111111111111111",
        parent_id="b7ad6b7169203331",
        end_ns=START_NS,
        status=1,
    ),
    {
        "spanId": "b7ad6b7169203331",
        "parentSpanId": "00f067aa0ba902b7",
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": None,
        "status": None,
        "kind": "llm",
        "tags": ["a"],
        "attributes": {"logfire.msg": "chat"},
    },
    {"model": "openai:gpt-4o-mini", "costUnknown": None, "durationMs": None},
)

# --- MLflow, and ours.

CASES["mlflow: a call"] = Case(
    span(
        {
            "mlflow.spanType": '"CHAT_MODEL"',
            "mlflow.spanInputs": json.dumps({"messages": OPENAI_MESSAGES, "model": "gpt-4o-mini"}),
            "mlflow.spanOutputs": json.dumps(
                {"id": "chatcmpl-1", "choices": [{"index": 0, "message": ANSWER}]}
            ),
            "mlflow.chat.tokenUsage": '{"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}',
        }
    ),
    {"kind": "llm", "output": {"id": "chatcmpl-1"}},
    {
        "tokens": {"prompt": 100, "completion": 20, "total": 120},
        "request": REQUEST | {"settings": {"model": "gpt-4o-mini"}},
    },
)

CASES["runglass: a call"] = Case(
    span(
        {
            "runglass.run.id": "0199aaaa-0000-7000-8000-000000000000",
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "runglass.cost_usd": "0.00003",
            "runglass.provider_request_id": "chatcmpl-1",
        },
        scope="runglass",
    ),
    {"attributes": {"runglass.run.id": "0199aaaa-0000-7000-8000-000000000000"}},
    {"requestId": "chatcmpl-1", "costUsd": "0.00003", "listCostUsd": "0.000027"},
)

# --- Anything else.

CASES["http"] = Case(
    span({"http.request.method": "GET", "url.full": "https://x/"}, name="GET /", kind=2, scope="asgi"),
    {
        # `other`, which is not written.
        "kind": None,
        "isGenAi": None,
        "name": "GET /",
        "attributes": {"http.request.method": "GET", "url.full": "https://x/"},
    },
)
CASES["code"] = Case(
    span({"code.function": "work", "session.id": "s1"}, name="work"),
    {"kind": "code", "isGenAi": None, "session": "s1", "attributes": {"code.function": "work"}},
)
CASES["an unknown dialect"] = Case(
    span({"acme.llm.prompt": "hi", "acme.tokens": 12}),
    {"kind": "code", "isGenAi": None, "attributes": {"acme.llm.prompt": "hi", "acme.tokens": 12}},
)
