"""The usage that a span tells, judged: uncached input, cache reads and cache writes are the prompt, exactly.

Emitters differ in whether the input has the cached tokens in it. Where the numbers show it they decide, else
what is known of the emitter does. Nothing is floored or made up: numbers that cannot be right are none.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from runglass.log.trace import TokenBreakdown
from runglass.recording.dialects.readers import by_word

MOST_TOKENS = 10**10
"""No run of an agent has as many."""

COUNTS = (
    *("prompt", "completion", "total", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h"),
    *("reasoning", "uncached"),
)
DETAILS = ("usage_details", "prompt_details", "completion_details")

_NAMES = by_word("""
prompt: input input_tokens prompt_tokens prompt_token_count
completion: output output_tokens completion_tokens candidates_token_count
total: total total_tokens total_token_count
cache_read: cached_tokens cache_read cache_read_input_tokens input_cached_tokens input_cache_read
  cached_content_token_count
cache_write: cache_write_tokens cache_creation cache_creation_input_tokens input_cache_creation
cache_write_5m: input_cache_creation_5m ephemeral_5m_input_tokens
cache_write_1h: input_cache_creation_1h ephemeral_1h_input_tokens
reasoning: reasoning reasoning_tokens output_reasoning output_reasoning_tokens thoughts_token_count
""")
"""What the numbers are called where all of them come as one object."""


class Usage(NamedTuple):
    """Tokens as they are booked; `problem` says what cannot be right where none are, `note` what is odd."""

    tokens: TokenBreakdown | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int = 0
    reasoning: int | None = None
    problem: str | None = None
    note: str | None = None


NONE = Usage()


def read_usage(
    counts: dict[str, Any], details: dict[str, Any], *, model: str, is_raw: bool, is_embedding: bool
) -> Usage:
    """The usage in `counts`, by slot, and in `details`, by names of its own.

    `is_raw` says that the emitter passes on what Anthropic's API says, whose input is without the cache.
    """
    told = dict(counts)
    for slot, count in _named(details):
        told.setdefault(slot, count)
    for slot, count in told.items():
        if type(count) is float and count.is_integer():
            told[slot] = count = int(count)
        if type(count) is not int or not 0 <= count <= MOST_TOKENS:
            return Usage(problem=f"{slot.replace('_', ' ')} tokens are {count!r:.50}")
    prompt, completion, total = told.get("prompt"), told.get("completion"), told.get("total")
    if not (prompt or completion or total):
        return NONE
    read, write = told.get("cache_read"), told.get("cache_write")
    by_the_hour = told.get("cache_write_1h", 0)
    if parts := told.get("cache_write_5m", 0) + by_the_hour:
        if write is not None and write != parts:
            by_the_hour = min(by_the_hour, write)
        write = parts if write is None else write
    reasoning, cached = told.get("reasoning"), (read or 0) + (write or 0)
    if completion is None and (is_embedding or prompt == total):
        completion = 0
    if prompt is None and completion is not None and total is not None:
        prompt = total - completion
    if completion is None and prompt is not None and total is not None:
        completion = total - prompt
    if prompt is None or completion is None:
        # A stream that was left: of what is missing, nothing is known.
        known = ", ".join(f"{count} {slot}" for slot, count in told.items() if count)
        return Usage(note=f"of the tokens only {known} are told")
    if prompt < 0 or completion < 0:
        return Usage(problem=f"a total of {total} tokens with {told.get('prompt', told.get('completion'))}")
    given = prompt + completion
    if _is_without_cache(told, prompt, completion, cached, is_raw=is_raw, is_summed="input" in details):
        prompt += cached
    if reasoning and (
        ("output" in details and "input" in details)
        or (total == prompt + completion + reasoning)
        or (reasoning > completion and total is None and "gemini" in model)
    ):
        # Langfuse and Gemini have it beside the completion.
        completion += reasoning
    if (reasoning or 0) > completion:
        return Usage(problem=f"{reasoning} reasoning of {completion} completion tokens")
    note = None
    # As sums they are right with and without what the cache had.
    if total not in (None, prompt + completion, given):
        note = f"a total of {total} tokens is told, and {prompt} + {completion}"
    return Usage(
        tokens=TokenBreakdown(prompt=prompt, completion=completion, total=prompt + completion),
        cache_read=read or None,
        cache_write=write or None,
        cache_write_1h=by_the_hour,
        reasoning=reasoning or None,
        note=note,
    )


def _is_without_cache(
    told: dict[str, int], prompt: int, completion: int, cached: int, *, is_raw: bool, is_summed: bool
) -> bool:
    """Whether `prompt` is without the cached tokens; `is_summed` where the emitter adds up all parts."""
    if not cached:
        return False
    uncached, total = told.get("uncached"), told.get("total")
    if uncached is not None and uncached + cached == prompt:
        return False
    if cached > prompt or uncached == prompt:
        return True
    if total == prompt + completion and not is_raw:
        return False
    return is_raw or is_summed or total == prompt + completion + cached


def _named(details: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, count in details.items():
        if isinstance(count, dict):
            yield from _named(count)
        elif name in _NAMES and count is not None:
            yield _NAMES[name], count
