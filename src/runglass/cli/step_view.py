"""One attempt of a step for the eye: every field, and what was kept of its input, output and error."""

from collections.abc import Iterator

import msgspec
from rich.text import Text

from runglass.cli import words
from runglass.cli.terminal import one_line
from runglass.trace import StepTrace


def attempt_lines(step: StepTrace) -> Iterator[Text]:
    """The attempt, one fact on a line; snapshots are indented JSON."""
    cut = ", cut to fit" if step.truncated else ""
    yield _fact("step", step.step_id)
    if where := words.iteration_of(step):
        yield _fact("iteration", where)
    yield _fact("attempt", str(step.attempt))
    yield _fact("status", step.status, words.STYLES.get(step.status, ""))
    yield _fact("started", step.started_at or words.UNKNOWN)
    yield _fact("completed", step.completed_at or words.UNKNOWN)
    yield _fact("duration", words.duration(step.duration_ms))
    yield _fact("model", one_line(step.model_used or words.UNKNOWN))
    yield _fact("tokens", _tokens(step))
    yield _fact("cost", words.money(step.cost_usd))
    yield from _snapshot("input", step.input_context, words.size(step.input_size_bytes) + cut)
    yield from _snapshot("output", step.output_context, words.size(step.output_size_bytes) + cut)
    if step.error_context is not None:
        yield from _snapshot("error", step.error_context, words.error_text(step.error_context), style="red")


def _fact(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<11}", "bold"), (value, style))


def _tokens(step: StepTrace) -> str:
    if step.tokens is None:
        return words.UNKNOWN
    used = step.tokens
    return f"{used.prompt:,} prompt + {used.completion:,} completion = {used.total:,}"


def _snapshot(name: str, value: object, about: str, *, style: str = "") -> Iterator[Text]:
    if value is None:
        yield _fact(
            name, about if about == words.UNKNOWN else f"{about}, not kept; run with --trace to keep it"
        )
        return
    yield _fact(name, one_line(about), style)
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    for line in text.split("\n"):
        yield Text(f"  {line}")
