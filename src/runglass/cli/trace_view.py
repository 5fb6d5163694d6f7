"""A trace for the eye: what the run came to, and a table of its steps."""

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec
from rich.text import Text

from runglass.cli import words
from runglass.cli.table import Cell, Column, Row, table_lines
from runglass.cli.terminal import one_line
from runglass.trace import RunSummary, StepTrace, TokenBreakdown, Trace

COLUMNS = (
    Column("step"),
    Column("iteration", right=True),
    Column("attempt", right=True),
    Column("status"),
    Column("started", right=True, spare=4),
    Column("duration", right=True),
    Column("model", spare=3),
    Column("tokens", right=True, spare=2),
    Column("cost", right=True, spare=1),
)


def step_lines(trace: Trace, *, width: int | None) -> Iterator[Text]:
    """The steps of the trace as a table; below each failed step stands its error."""
    start = words.moment(trace.flow_run.started_at)
    rows = [
        Row(
            (
                Cell(step.step_id),
                Cell(words.iteration_of(step)),
                Cell(
                    "" if step.status == "skipped" else str(step.attempt),
                    "yellow" if step.attempt > 1 else "",
                ),
                Cell(step.status, words.STYLES.get(step.status, "")),
                Cell(words.offset(start, step.started_at)),
                Cell(words.duration(step.duration_ms)),
                Cell(step.model_used or words.UNKNOWN),
                Cell(words.UNKNOWN if step.tokens is None else words.count(step.tokens.total)),
                Cell(words.money(step.cost_usd)),
            ),
            below=_error_below(step),
        )
        for step in trace.steps
    ]
    return table_lines(COLUMNS, rows, width=width)


def _error_below(step: StepTrace) -> Sequence[Text]:
    if step.status != "failed":
        return ()
    return (Text(f"    {one_line(words.error_text(step.error_context))}", "red"),)


def summary_lines(trace: Trace) -> Iterator[Text]:
    """What the run is and what it came to; the totals are sums over the listed attempts."""
    run, steps = trace.flow_run, trace.steps
    yield _fact("run", run.id)
    yield _fact("flow", run.flow_id)
    yield _fact("status", run.status, words.STYLES.get(run.status, ""))
    yield _fact("trigger", run.trigger_type or words.UNKNOWN)
    yield _fact("started", words.local_time(run.started_at))
    yield _fact("duration", words.duration(run.duration_ms))
    yield _fact("steps", _step_total(run, steps))
    yield _fact("tokens", _token_total(steps))
    yield _fact("cost", _cost_total(steps))


def _fact(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<10}", "bold"), (value, style))


def _step_total(run: RunSummary, steps: Sequence[StepTrace]) -> str:
    by_status = Counter(step.status for step in steps)
    parts = [f"{number:,} {status}" for status, number in by_status.items()]
    if retried := sum(step.attempt > 1 for step in steps):
        parts.append(f"{retried:,} retried")
    of_flow = "" if run.step_count is None else f"; the flow has {run.step_count:,}"
    return f"{len(steps):,} listed" + (f": {', '.join(parts)}" if parts else "") + of_flow


def _token_total(steps: Sequence[StepTrace]) -> str:
    used = [step.tokens for step in steps if step.tokens is not None]
    if not used:
        return words.UNKNOWN
    total = TokenBreakdown(
        prompt=sum(tokens.prompt for tokens in used),
        completion=sum(tokens.completion for tokens in used),
        total=sum(tokens.total for tokens in used),
    )
    return f"{total.prompt:,} prompt + {total.completion:,} completion = {total.total:,}"


def _cost_total(steps: Sequence[StepTrace]) -> str:
    costs = [Decimal(step.cost_usd) for step in steps if step.cost_usd is not None]
    unpriced = sum(step.model_used is not None and step.cost_usd is None for step in steps)
    without = f"{words.counted(unpriced, 'model call')} without a known price" if unpriced else ""
    if not costs:
        return f"{words.UNKNOWN} ({without})" if without else words.UNKNOWN
    total = words.money(sum(costs, Decimal(0)))
    return f"{total} (and {without})" if without else total


def excerpt(trace: Trace, most: int) -> Trace:
    """The trace with at most `most` steps: first all that failed, were tried again or are in no loop."""
    if len(trace.steps) <= most:
        return trace
    notable = [at for at, step in enumerate(trace.steps) if _is_notable(step)][:most]
    others = [at for at, step in enumerate(trace.steps) if not _is_notable(step)]
    kept = sorted(notable + others[: most - len(notable)])
    return msgspec.structs.replace(trace, steps=[trace.steps[at] for at in kept])


def _is_notable(step: StepTrace) -> bool:
    return not step.loop_path or step.attempt > 1 or step.status == "failed"
