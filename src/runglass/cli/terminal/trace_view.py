"""A trace as text: a summary of the run, and a table of its steps."""

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.output import one_line
from runglass.cli.terminal.table import Cell, Column, Row, table_lines
from runglass.trace import ModelTotals, RunSummary, RunTotals, StepTrace, Trace

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
    """The steps of the trace as a table; an error, or a cut of the text, stands below its step."""
    start = formatting.moment(trace.flow_run.started_at)
    rows = [
        Row(
            (
                Cell(step.step_id),
                Cell(formatting.iteration_of(step)),
                Cell(
                    "" if step.status == "skipped" else str(step.attempt),
                    "yellow" if step.attempt > 1 else "",
                ),
                Cell(step.status, formatting.STYLES.get(step.status, "")),
                Cell(formatting.offset(start, step.started_at)),
                Cell(formatting.duration(step.duration_ms)),
                Cell(step.model_used or formatting.UNKNOWN),
                Cell(formatting.UNKNOWN if step.tokens is None else formatting.count(step.tokens.total)),
                Cell(formatting.money(step.cost_usd)),
            ),
            below=_remarks_below(step),
        )
        for step in trace.steps
    ]
    return table_lines(COLUMNS, rows, width=width)


def _remarks_below(step: StepTrace) -> Sequence[Text]:
    if step.status == "failed":
        return (Text(f"    {one_line(formatting.error_text(step.error_context))}", "red"),)
    return (Text(f"    {formatting.CUT}", "yellow"),) if step.finish_reason == "length" else ()


def summary_lines(trace: Trace) -> Iterator[Text]:
    """The fields of the run, and its totals over every attempt and every model call."""
    run = trace.flow_run
    yield _fact("run", run.id)
    yield _fact("flow", formatting.flow(run))
    yield _fact("status", run.status, formatting.STYLES.get(run.status, ""))
    if run.error is not None:
        yield _fact("error", one_line(formatting.run_error(run.error), limit=400), "red")
    yield _fact("trigger", run.trigger_type or formatting.UNKNOWN)
    if run.session_id is not None:
        yield _fact("session", run.session_id)
    yield _fact("started", formatting.local_time(run.started_at))
    yield _fact("duration", formatting.duration(run.duration_ms))
    if run.overridden:
        yield _fact("overrides", one_line(", ".join(run.overridden), limit=400), "yellow")
    yield _fact("steps", _step_total(run, trace.steps))
    if run.totals is None:
        return
    yield _fact("tokens", formatting.tokens(run.totals.tokens))
    yield _fact("cost", _cost(run.totals))
    if len(run.totals.by_model) > 1:
        for name, model in run.totals.by_model.items():
            yield _fact("", f"{one_line(name, limit=60)}: {_of_model(model)}")
    if cut := formatting.cut_short(run.totals):
        yield _fact("beware", cut, "yellow")


def _fact(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<11}", "bold"), (value, style))


def _step_total(run: RunSummary, steps: Sequence[StepTrace]) -> str:
    by_status = Counter(step.status for step in steps)
    parts = [f"{number:,} {status}" for status, number in by_status.items()]
    if run.totals is not None and run.totals.retried:
        parts.append(f"{formatting.counted(run.totals.retried, 'attempt')} failed and retried")
    of_flow = "" if run.step_count is None else f"; the flow has {run.step_count:,}"
    return f"{len(steps):,} listed" + (f": {', '.join(parts)}" if parts else "") + of_flow


def _cost(totals: RunTotals) -> str:
    parts = [formatting.least_money(totals)]
    if totals.failed_cost_usd is not None:
        parts.append(f"{formatting.money(totals.failed_cost_usd)} of it in attempts that failed")
    if unknown := formatting.unknown_costs(totals):
        parts.append(unknown)
    return "; ".join(parts)


def _of_model(model: ModelTotals) -> str:
    parts = [formatting.counted(model.calls, "call"), formatting.money(model.cost_usd)]
    if model.tokens is not None:
        parts.insert(1, formatting.counted(model.tokens.total, "token"))
    if unknown := formatting.unknown_costs(model):
        parts.append(unknown)
    return ", ".join(parts)


def excerpt(trace: Trace, most: int) -> Trace:
    """The trace with at most `most` steps: first those that failed, were retried, cut or in no loop."""
    if len(trace.steps) <= most:
        return trace
    notable = [at for at, step in enumerate(trace.steps) if _is_notable(step)][:most]
    others = [at for at, step in enumerate(trace.steps) if not _is_notable(step)]
    kept = sorted(notable + others[: most - len(notable)])
    return msgspec.structs.replace(trace, steps=[trace.steps[at] for at in kept])


def _is_notable(step: StepTrace) -> bool:
    return not step.loop_path or step.attempt > 1 or step.status == "failed" or step.finish_reason == "length"
