"""How a value of an attribute is read: each reader gives None for what it does not understand.

What is not understood stays an attribute, so no reader guesses and none raises.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

import msgspec

from runglass.log.span_state import SpanKind

Reader = Callable[[Any], Any]

MOST_LEVELS = 100
"""No message is nested as deep; what is would not survive being put into something else."""
MOST_DECIMALS, MOST_DIGITS = 30, 100


def as_is(value: Any) -> Any:
    return value


def text(value: Any) -> str | None:
    """A text, or a number for one: ids of sessions and users are either.

    Logfire writes one text in place of each that it takes for a secret.
    """
    if type(value) is int:
        return str(value)
    return value if type(value) is str and value and not value.startswith("[Scrubbed due to ") else None


def flag(value: Any) -> bool | None:
    return value if type(value) is bool else None


def count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def wait(value: Any) -> int | None:
    """Seconds, of a day at most: times beyond the calendar cannot be reckoned with."""
    return None if count(value) is None else min(value, 86_400)


def names(value: Any) -> list[str] | None:
    """A list of texts, also as JSON or with commas between them."""
    if type(value) is str:
        found = decoded(value) if value.startswith("[") else value.split(",")
        value = [each.strip() for each in found] if _are_texts(found) else None
    return value if value and _are_texts(value) else None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is str for each in value)


def milliseconds(value: Any) -> int | None:
    return round(value) if type(value) in (int, float) and 0 <= value < 1e15 else None


def seconds(value: Any) -> int | None:
    """Strands sends whole milliseconds under the name under which others send seconds, with a point."""
    return milliseconds(value * 1000 if type(value) is float else value)


def moment(value: Any) -> float | None:
    """Milliseconds since 1970 of a time in ISO 8601, also as JSON."""
    try:
        return datetime.fromisoformat(json(value)).timestamp() * 1000
    except (TypeError, ValueError, OverflowError):
        return None


def json(value: Any) -> Any:
    """What a JSON text says, a text that is no JSON, or a value that came as one."""
    if type(value) is not str:
        return value
    if not value:
        return None
    found = decoded(value) if value[0] in '{["' else None
    return value if found is None else found


def decoded(value: str) -> Any:
    """The value of a JSON text; None where it is none, or nested too deep."""
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    if value.count("[") + value.count("{") <= MOST_LEVELS:
        return found
    level = [found]
    for _ in range(MOST_LEVELS):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return None if level else found


def json_object(value: Any) -> dict[str, Any] | None:
    """An object; LangSmith sends some as Python writes them."""
    found = decoded(value) or decoded(value.replace("'", '"')) if type(value) is str else value
    return found if isinstance(found, dict) else None


def json_list(value: Any) -> list[Any] | None:
    """A list, also as JSON, and with JSON texts in it."""
    found = decoded(value) if type(value) is str else value
    if not isinstance(found, list):
        return None
    return [json_object(each) or each if type(each) is str else each for each in found]


def dollars(value: Any) -> Decimal | None:
    """An amount, exactly as it was sent: of a number with a point its shortest text."""
    if type(value) not in (str, int, float) or (type(value) is str and len(value) > MOST_DIGITS):
        return None
    try:
        usd = Decimal(repr(value) if type(value) is float else value)
    except ArithmeticError:
        return None
    # Its digits are written one by one.
    return usd if usd.is_finite() and usd >= 0 and -MOST_DECIMALS <= usd.adjusted() < MOST_DECIMALS else None


class Kind(NamedTuple):
    """A kind of step. An entry begins an agent or a workflow; what is vague gives way to any other word."""

    kind: SpanKind
    is_entry: bool = False
    is_vague: bool = False


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def by_word(table: str) -> dict[str, str]:
    """Our word for each of those behind it, line by line."""
    lines = [line.split(": ") for line in table.replace("\n  ", " ").strip().splitlines()]
    return {word: ours for ours, words in lines for word in words.split()}


_KIND_WORDS = by_word("""
llm: chat llm generation text_completion generate_content completion chat_model llm_request
  ai.generatetext.dogenerate ai.streamtext.dostream ai.generateobject.dogenerate ai.streamobject.dostream
embedding: embeddings embedding ai.embed.doembed ai.embedmany.doembed ai.embed ai.embedmany
retrieval: retrieval retriever rerank reranker search_memory vector_db_retrieve ai.rerank ai.rerank.dorerank
tool: execute_tool tool ai.toolcall
agent entry: invoke_agent agent invoke_swarm invoke_graph handle_conversation_turn ai.generatetext
  ai.streamtext ai.generateobject ai.streamobject
agent: create_agent
chain entry: invoke_workflow workflow
chain: chain plan agent_step execute_event_loop_cycle execute_task parser run step attempt loop iteration
  parallel condition branch
guardrail: guardrail
code: prompt evaluator code
other: other
chain vague: task
code vague: span event unknown human memory
""")
_KINDS = {
    word: Kind(cast(SpanKind, ours.split()[0]), ours.endswith(" entry"), ours.endswith(" vague"))
    for word, ours in _KIND_WORDS.items()
}
_PLAIN = words(
    "chat llm generation embeddings embedding retrieval retriever execute_tool tool invoke_agent agent chain"
    " guardrail span code other"
)
"""Words that say no more than our kind does."""


def _word(value: Any) -> str:
    # MLflow sends its words as JSON texts.
    return value.strip('"').lower() if type(value) is str else ""


def kind(value: Any) -> Kind | None:
    return _KINDS.get(_word(value))


_PROVIDERS = by_word("""
azure: az.ai.openai azure.ai.openai azure.ai.inference az.ai.inference azure_openai
bedrock: aws.bedrock aws_bedrock amazon_bedrock amazon-bedrock aws
google: gcp.gemini gcp.gen_ai gcp.vertex.agent google-gla google_genai gemini
google-vertex: gcp.vertex_ai vertex_ai vertexai google_vertexai
mistral: mistral_ai mistralai
xai: x_ai x-ai grok
together: together_ai
huggingface: hugging_face
fireworks: fireworks_ai
""")
"""Providers as pydantic-ai calls them."""
_FRAMEWORKS = words(
    "langchain langgraph strands-agents crewai llamaindex llama_index haystack litellm agno dspy smolagents"
    " autogen microsoft.agent_framework runglass pydantic-ai openai-agents openai_agents semantic_kernel"
    " _OTHER unknown other"
)


def provider(value: Any) -> str | None:
    """The provider in our words; frameworks that call themselves one are none."""
    if type(value) is not str or not value or value in _FRAMEWORKS:
        return None
    word = value.lower()
    # The AI SDK tells the kind of client as well: `openai.chat`, `anthropic.messages`.
    first = word.partition(".")[0]
    return _PROVIDERS.get(word) or _PROVIDERS.get(first, first)


_REASONS = by_word("""
stop: stop end_turn stop_sequence eos complete completed finish_reason_stop
length: length max_tokens max_output_tokens model_length finish_reason_max_tokens
tool_call: tool_call tool_use tool_calls tool-calls function_call
content_filter: content_filter safety content-filter content_filtered guardrail_intervened refusal
error: error
""")


def finish_reasons(value: Any) -> list[str] | None:
    found = names(value)
    return None if found is None else [_REASONS.get(each.lower(), each) for each in found if each]


def is_plain(value: Any, said: Any) -> bool:
    """Whether what was sent says no more than our word for it."""
    if type(said) is list:
        return value == said or names(value) == said
    return value == said or (_word(value) in _PLAIN if type(said) is Kind else _word(value) == said)
