"""A run as text: why it is as it is, its facts, and its totals over every attempt and every model call."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.outline_rows import OPEN, OutlineRows
from runglass.cli.terminal.output import one_line
from runglass.log.trace import ModelTotals, RunSummary, RunTotals, StepTrace
from runglass.outlines.outline import NONE

MOST_RUNNING = 3
MOST_CUT = 4
WHY_CHARS = 600
CONTENT_CHARS = 600


def reason_row(run: RunSummary, rows: OutlineRows) -> int:
    """The row that tells why the run is as it is: what failed or was cut off last, or what waits; else -1."""
    if run.status in ("failed", "cancelled"):
        step_id = None if run.error is None else run.error.step_id
        found = [row for row in rows.rows_with(run.status) if step_id in (None, rows.name(row))]
        return max(found, key=lambda row: rows.end[row], default=NONE)
    if run.status == "paused":
        return next(rows.rows_with("waiting"), NONE)
    return NONE


def why_lines(run: RunSummary, rows: OutlineRows, attempt: StepTrace | None, *, named: str) -> Iterator[Text]:
    """Why the run is as it is, and how to look closer; nothing where it ended well.

    `attempt` is that of `reason_row`, `named` the words by which the run is named in commands.
    """
    row = reason_row(run, rows)
    if run.status in ("failed", "cancelled"):
        style = formatting.STYLES["failed"] if run.status == "failed" else ""
        yield _fact("why", _why_ended(run, rows, row, attempt), style)
    elif run.status == "paused":
        yield _fact("why", _why_paused(rows, row, attempt), "yellow")
    elif run.status == "pending":
        yield _fact("now", "it waits until a process that executes runs has a place for it", "cyan")
    elif run.status == "running":
        yield _fact("now", _now(rows), "cyan")
    if row != NONE:
        yield Text(f"{'':<11}runglass runs step {named} {step_arguments(rows, row)}")


def step_arguments(rows: OutlineRows, row: int) -> str:
    """The attempt as arguments of `runs step`: `correct --loop 3 --attempt 2`."""
    address = rows.address(row)
    loop = f" --loop {'.'.join(map(str, address.loop_path))}" if address.loop_path else ""
    attempt = f" --attempt {address.attempt}" if rows.attempts_of(row) > 1 else ""
    return f"{shlex.quote(one_line(address.step_id))}{loop}{attempt}"


def _why_ended(run: RunSummary, rows: OutlineRows, row: int, attempt: StepTrace | None) -> str:
    error = "no reason is known" if run.error is None else formatting.run_error(run.error)
    if row == NONE:
        return one_line(error, limit=WHY_CHARS)
    where = f"{_spoken(rows, row)}: "
    if run.status == "cancelled":
        return one_line(f"{error}; it was in {_spoken(rows, row)}", limit=WHY_CHARS)
    if attempt is not None and attempt.error_context is not None:
        error = formatting.error_text(attempt.error_context)
    elif run.error is not None:
        error = ": ".join(part for part in (run.error.code, run.error.message) if part)
    return where + one_line(error, limit=WHY_CHARS)


def _why_paused(rows: OutlineRows, row: int, attempt: StepTrace | None) -> str:
    if row == NONE:
        return "a step-through waits for its next call"
    calls = _tool_calls(attempt)
    if not calls:
        return f"{_spoken(rows, row)} waits for the results of tool calls"
    number = formatting.counted(len(calls), "tool call")
    return f"{_spoken(rows, row)} waits for the results of {number}: {one_line(', '.join(calls))}"


def _tool_calls(attempt: StepTrace | None) -> Sequence[str]:
    response = attempt.model_calls[-1].response if attempt is not None and attempt.model_calls else None
    calls = response.get("toolCalls") if isinstance(response, dict) else None
    names = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function", call) if isinstance(call, dict) else None
        names.append(str(function.get("name")) if isinstance(function, dict) else "?")
    return names


def _now(rows: OutlineRows) -> str:
    running = list(islice(rows.rows_with(*OPEN), MOST_RUNNING + 1))
    if not running:
        return "no step runs at the moment"
    shown = ", ".join(_spoken(rows, row) for row in running[:MOST_RUNNING])
    return f"{shown}{' and more' if len(running) > MOST_RUNNING else ''}"


def _spoken(rows: OutlineRows, row: int) -> str:
    """The attempt for people: `price [1], attempt 2 of 2`."""
    number, of = rows.attempt[row], rows.attempts_of(row)
    return one_line(str(rows.address(row)), limit=100) + (f", attempt {number} of {of}" if of > 1 else "")


def summary_lines(run: RunSummary, rows: OutlineRows, *, why: Iterable[Text] = ()) -> Iterator[Text]:
    """The status of the run, why it is so, its fields, and its totals."""
    took = "" if run.duration_ms is None else f" in {formatting.duration(run.duration_ms)}"
    status = f"{formatting.MARKS.get(run.status, '?')} {run.status}{took}"
    yield _fact("status", status, formatting.STYLES.get(run.status, ""))
    yield from why
    yield _fact("run", run.id)
    yield _fact("flow", one_line(formatting.flow(run)))
    by = "" if run.started_by is None else f", by the key {run.started_by}"
    yield _fact("trigger", one_line(f"{run.trigger_type or formatting.UNKNOWN}{by}"))
    if run.rerun_of is not None:
        yield _fact("rerun of", one_line(run.rerun_of))
    if run.session_id is not None:
        yield _fact("session", one_line(run.session_id))
    yield _fact("started", formatting.local_time(run.started_at))
    if run.overridden:
        yield _fact("overrides", one_line(formatting.overrides(run.overridden), limit=400), "yellow")
    if run.input is not None:
        yield _fact("input", _kept(run.input if len(run.input) > 1 else run.input.get("inputs")))
    if run.result is not None:
        yield _fact("result", _kept(run.result))
    if run.totals is None:
        return
    yield _fact("steps", _step_total(run.totals))
    yield _fact("tokens", formatting.tokens(run.totals.tokens))
    yield _fact("cost", _cost(run.totals))
    if len(run.totals.by_model) > 1:
        for name, model in run.totals.by_model.items():
            yield _fact("", f"{one_line(name, limit=60)}: {_of_model(model)}")
    if cut := formatting.cut_short(run.totals):
        yield _fact("beware", f"{cut}{_which(rows)}", "yellow")
    if run.status == "completed" and run.totals.failed:
        yield _fact(
            "beware", f"{formatting.counted(run.totals.failed, 'step')} failed all the same", "yellow"
        )


def _which(rows: OutlineRows) -> str:
    """The first attempts whose text was cut: `: ask [0], ask [3] and 2 more`."""
    shown = [_spoken(rows, row) for row in rows.cut[:MOST_CUT]]
    more = f" and {len(rows.cut) - MOST_CUT:,} more" if len(rows.cut) > MOST_CUT else ""
    return f": {', '.join(shown)}{more}" if shown else ""


def _kept(value: Any) -> str:
    """An input or a result in a line: of an object whose only member is a text that text."""
    only = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    text = only if isinstance(only, str) else msgspec.json.encode(value).decode()
    line = one_line(text, limit=len(text))
    return line if len(line) <= CONTENT_CHARS else f"{line[:CONTENT_CHARS]}… (cut; --json has all of it)"


def _fact(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<11}", "bold"), (value, style))


def _step_total(totals: RunTotals) -> str:
    parts = [
        f"{number:,} {name}"
        for number, name in (
            (totals.completed, "completed"),
            (totals.failed - totals.cancelled, "failed"),
            (totals.cancelled, "cancelled"),
            (totals.skipped, "skipped"),
        )
        if number
    ]
    if totals.retried:
        parts.append(f"{formatting.counted(totals.retried, 'attempt')} failed and retried")
    return ", ".join(parts) or "none yet"


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
