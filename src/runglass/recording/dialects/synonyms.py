"""The one table of what emitters call things: the keys of attributes, and the slot that each of them fills.

A slot is what we call it. Of several keys for one slot the earlier one in the table is taken where they
differ; the other stays an attribute. Sources: the conventions for generative AI of OpenTelemetry from 1.27 to
now, OpenInference, OpenLLMetry, and the libraries of Langfuse, LangSmith, Vercel, Logfire, pydantic-ai,
Strands, Google's ADK and MLflow, and our own.
"""

from typing import NamedTuple

from runglass.recording.dialects import readers
from runglass.recording.dialects.readers import Reader, by_word, words

_TABLE = """
kind kind: langfuse.observation.type openinference.span.kind langsmith.span.kind traceloop.span.kind
  ai.operationId mlflow.spanType gen_ai.operation.name llm.request.type runglass.kind
model text: gen_ai.request.model llm.request.model_name langfuse.observation.model.name ai.model.id
  embedding.model_name reranker.model_name llm.model_name langsmith.metadata.ls_model_name mlflow.llm.model
model_used text: gen_ai.response.model llm.response.model_name ai.response.model
provider provider: gen_ai.provider.name llm.provider gen_ai.system ai.model.provider llm.system
  langsmith.metadata.ls_provider mlflow.llm.provider
request_id text: gen_ai.response.id ai.response.id llm.response.id runglass.provider_request_id
finish finish_reasons: gen_ai.response.finish_reasons gen_ai.response.finish_reason
  gen_ai.response.stop_reason llm.finish_reason llm.response.finish_reason llm.response.stop_reason
  ai.response.finishReason
streamed flag: gen_ai.request.stream gen_ai.is_streaming llm.is_streaming langsmith.request.streaming
first_token_ms seconds: gen_ai.response.time_to_first_chunk gen_ai.client.operation.time_to_first_chunk
  gen_ai.server.time_to_first_token
first_token_ms milliseconds: ai.response.msToFirstChunk ai.stream.msToFirstChunk
first_token_at moment: langfuse.observation.completion_start_time
system json: gen_ai.system_instructions
sent json_list: gen_ai.input.messages ai.prompt.messages
received json_list: gen_ai.output.messages
tools json_list: gen_ai.tool.definitions ai.prompt.tools
tool_choice json: ai.prompt.toolChoice gen_ai.request.tool_choice
output_schema json_object: gen_ai.request.structured_output_schema ai.schema
settings json_object: llm.invocation_parameters langfuse.observation.model.parameters
  embedding.invocation_parameters
said text: ai.response.text
said json: ai.response.object
said_calls json_list: ai.response.toolCalls
said_reasoning text: ai.response.reasoning
total as_is: gen_ai.client.token.usage
cache_write_5m as_is: gen_ai.usage.cache_creation.ephemeral_5m_input_tokens
cache_write_1h as_is: gen_ai.usage.cache_creation.ephemeral_1h_input_tokens
usage_details json_object: langfuse.observation.usage_details mlflow.chat.tokenUsage gen_ai.usage.raw
  langsmith.metadata.usage_metadata
prompt_details json_object: gen_ai.usage.input_token_details
completion_details json_object: gen_ai.usage.output_token_details
cost dollars: runglass.cost_usd gen_ai.usage.cost llm.cost.total operation.cost gen_ai.usage.total_cost
  gen_ai.cost.total_cost
cost_amount dollars: gen_ai.usage.cost.amount
prompt_cost dollars: llm.cost.prompt gen_ai.cost.input_cost
completion_cost dollars: llm.cost.completion gen_ai.cost.output_cost
cost_details json_object: langfuse.observation.cost_details mlflow.llm.cost
input json: input.value langfuse.observation.input traceloop.entity.input mlflow.spanInputs
  gen_ai.tool.call.arguments ai.toolCall.args gcp.vertex.agent.tool_call_args tool_arguments gen_ai.prompt
  ai.prompt gcp.vertex.agent.llm_request gcp.vertex.agent.data ai.value ai.values gen_ai.task.input
  mcp.request.argument runglass.input langfuse.trace.input
output json: output.value langfuse.observation.output traceloop.entity.output mlflow.spanOutputs
  gen_ai.tool.call.result ai.toolCall.result gcp.vertex.agent.tool_response tool_response
  gen_ai.completion gcp.vertex.agent.llm_response final_result ai.embedding ai.embeddings ai.ranking
  gen_ai.task.output mcp.response.value runglass.output langfuse.trace.output
query text: gen_ai.retrieval.query.text reranker.query gen_ai.memory.query.text
documents json_list: gen_ai.retrieval.documents gen_ai.memory.records ai.documents
history json_list: pydantic_ai.all_messages
agent_name text: gen_ai.agent.name agent.name gen_ai.workflow.name traceloop.entity.name
  ai.telemetry.functionId
session text: session.id langfuse.session.id gen_ai.conversation.id
  traceloop.association.properties.session_id langsmith.metadata.session_id langsmith.metadata.thread_id
  langsmith.metadata.conversation_id ai.telemetry.metadata.sessionId gcp.vertex.agent.session_id
  mlflow.trace.session
user text: user.id langfuse.user.id traceloop.association.properties.user_id langsmith.metadata.user_id
  ai.telemetry.metadata.userId gen_ai.user llm.user enduser.id mlflow.trace.user
tags names: tag.tags langfuse.trace.tags langsmith.span.tags logfire.tags ai.telemetry.metadata.tags
  runglass.tags
notes names: runglass.notes
input_size_bytes count: runglass.input_size_bytes
output_size_bytes count: runglass.output_size_bytes
truncated flag: runglass.truncated
lease_s wait: runglass.lease_s
settle_s wait: runglass.settle_s
dropped_steps count: runglass.dropped_steps
dropped_bytes count: runglass.dropped_bytes
release text: langfuse.release
environment text: langfuse.environment deployment.environment.name deployment.environment
error_type text: error.type exception.type
error_message text: error.message exception.message langfuse.observation.status_message
error_traceback text: exception.stacktrace
"""
"""Each line: the slot and the reader of its keys."""

_USAGE = (
    *("gen_ai.usage", "llm.token_count", "llm.usage", "ai.usage", "gen_ai.aggregated_usage"),
    *("gen_ai.usage.details", "gen_ai.aggregated_usage.details"),
)
"""What keys of numbers of tokens begin with."""
COUNTS = by_word("""
prompt: input_tokens prompt_tokens prompt input inputTokens promptTokens prompt_token_count tokens
completion: output_tokens completion_tokens completion output outputTokens completionTokens
  candidates_token_count
total: total_tokens total totalTokens total_token_count
cache_read: cache_read.input_tokens cache_read_input_tokens prompt_details.cache_read cache_read
  inputTokenDetails.cacheReadTokens cachedInputTokens cache_read_tokens cached_tokens input_cached_tokens
  input_cache_read cached_content_token_count
cache_write: cache_write.input_tokens cache_creation.input_tokens cache_creation_input_tokens
  cache_write_input_tokens prompt_details.cache_write inputTokenDetails.cacheWriteTokens cache_write_tokens
  cache_creation input_cache_creation
cache_write_5m: ephemeral_5m_input_tokens cache_write_5m_tokens input_cache_creation_5m
cache_write_1h: ephemeral_1h_input_tokens cache_write_1h_tokens input_cache_creation_1h
reasoning: reasoning.output_tokens reasoning_tokens completion_details.reasoning
  outputTokenDetails.reasoningTokens reasoningTokens reasoning output_reasoning output_reasoning_tokens
  thoughts_token_count
uncached: inputTokenDetails.noCacheTokens
""")
"""Numbers of tokens, by what they are called there, or where all of them come as one object. They are judged
together, not by readers."""


class Synonym(NamedTuple):
    slot: str
    read: Reader
    rank: int


def _synonyms() -> dict[str, Synonym]:
    found: dict[str, Synonym] = {}
    for line in _TABLE.replace("\n  ", " ").strip().splitlines():
        head, keys = line.split(": ")
        slot, read = head.split()
        for key in keys.split():
            found[key] = Synonym(slot, getattr(readers, read), len(found))
    for begin in _USAGE:
        for name, slot in COUNTS.items():
            found[f"{begin}.{name}"] = Synonym(slot, readers.as_is, len(found))
    return found


SYNONYMS = _synonyms()

OF_ANYTHING = words(
    "session user tags release environment error_type error_message error_traceback output input"
)
"""Slots that spans of any instrumentation may have: they do not make one a span of generative AI."""
FAMILIES = words(
    "gen_ai llm openinference traceloop langfuse langsmith ai mlflow mcp pydantic_ai retrieval reranker"
    " embedding"
)
"""What keys of generative AI begin with."""

INDEXED = {
    "llm.input_messages": "sent",
    "llm.output_messages": "received",
    "gen_ai.prompt": "sent",
    "gen_ai.completion": "received",
    "llm.tools": "tools",
    "llm.request.functions": "tools",
    "retrieval.documents": "documents",
    "reranker.output_documents": "documents",
    "llm.prompts": "sent",
    "llm.choices": "received",
    "embedding.embeddings": "embeddings",
    # These go on with a name.
    "gen_ai.request": "requested",
    "ai.settings": "requested",
}
"""The first words of keys that go on with an index, as `llm.input_messages.0.message.role`."""
