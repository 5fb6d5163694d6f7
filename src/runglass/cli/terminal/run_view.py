"""A run as text: why it is as it is, its facts and totals, its tree, and the errors of what failed in it."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import msgspec
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.formatting import fact
from runglass.cli.terminal.outline_rows import OutlineRows, StepAddress, TreeLine, choose_rows, tree_lines
from runglass.cli.terminal.outline_view import outline_lines
from runglass.cli.terminal.output import one_line
from runglass.log.trace import TERMINAL, Recording, RunSummary, StepTrace
from runglass.outlines.outline import NONE

ReadAttempt = Callable[[StepAddress], StepTrace]

MOST_RUNNING = 3
MOST_CUT = 4
WHY_CHARS = 600
CONTENT_CHARS = 600
MOST_SHOWN = 60
"""About so many rows are shown, unless all of them are asked for."""
MOST_ERRORS = 12
"""Errors that are shown in the tree."""


def reason_row(run: RunSummary, rows: OutlineRows) -> int:
    """The row that tells why the run is as it is: what failed or was cut off last, or what waits; else -1."""
    if run.status in ("failed", "cancelled"):
        step_id = None if run.error is None else run.error.step_id
        found = [row for row in rows.rows_with(run.status) if step_id in (None, rows.step_id(row))]
        return max(found, key=lambda row: rows.end[row], default=NONE)
    if run.status == "paused":
        return next(rows.rows_with("waiting"), NONE)
    return NONE


def why_lines(
    run: RunSummary, rows: OutlineRows, row: int, attempt: StepTrace | None, *, named: str
) -> Iterator[Text]:
    """Why the run is as it is, and how to look closer; nothing where it ended well.

    `row` is `reason_row`, `attempt` is that in it, `named` the words by which the run is named in commands.
    """
    if run.status in ("failed", "cancelled"):
        style = formatting.mark("failed")[1] if run.status == "failed" else ""
        yield fact("why", _why_ended(run, rows, row, attempt), style)
    elif run.status == "paused":
        yield fact("why", _why_paused(rows, row, attempt), "yellow")
    elif run.status == "pending":
        yield fact("now", "it waits until a process that executes runs has a place for it", "cyan")
    elif run.status == "running":
        running = list(islice(rows.rows_with("running", "waiting"), MOST_RUNNING + 1))
        shown = ", ".join(_attempt_text(rows, each) for each in running[:MOST_RUNNING])
        more = " and more" if len(running) > MOST_RUNNING else ""
        yield fact("now", f"{shown}{more}" if running else "no step runs at the moment", "cyan")
    if row != NONE:
        yield Text(f"{'':<11}runglass runs step {named} {step_arguments(rows, row)}")


def step_arguments(rows: OutlineRows, row: int) -> str:
    """The attempt as arguments of `runs step`: `correct --loop 3 --attempt 2`."""
    address = rows.address(row)
    loop = f" --loop {'.'.join(map(str, address.loop_path))}" if address.loop_path else ""
    attempt = f" --attempt {address.attempt}" if rows.attempts_of(row) > 1 else ""
    return f"{shlex.quote(one_line(address.step_id))}{loop}{attempt}"


def attempt_list(
    rows: OutlineRows, picked: Sequence[int], *, errors: Mapping[int, Text] | None = None, width: int | None
) -> Iterator[Text]:
    """A list of attempts by the words that `runs step` takes, each with its error where there is one."""
    if not picked:
        return iter([Text("no attempt of which it is known")])
    lines = [TreeLine(0, row, label=step_arguments(rows, row)) for row in picked]
    end_ms = max((0, *rows.start, *rows.end))
    return outline_lines(rows, lines, begin_ms=0, end_ms=end_ms, below=errors or {}, loops={}, width=width)


def errors_of(rows: OutlineRows, picked: Iterable[int], read: ReadAttempt) -> dict[int, Text]:
    """By row the error of each attempt that has one."""
    found = {row: read(rows.address(row)).error_context for row in picked}
    return {
        row: Text(formatting.error_text(error), "red") for row, error in found.items() if error is not None
    }


def _why_ended(run: RunSummary, rows: OutlineRows, row: int, attempt: StepTrace | None) -> str:
    error = "no reason is known" if run.error is None else formatting.run_error(run.error)
    if row == NONE:
        return one_line(error, limit=WHY_CHARS)
    where = _attempt_text(rows, row)
    if run.status == "cancelled":
        return one_line(f"{error}; during {where}", limit=WHY_CHARS)
    if attempt is not None and attempt.error_context is not None:
        error = formatting.error_text(attempt.error_context)
    elif run.error is not None:
        error = ": ".join(filter(None, (run.error.code, run.error.message)))
    return f"{where}: {one_line(error, limit=WHY_CHARS)}"


def _why_paused(rows: OutlineRows, row: int, attempt: StepTrace | None) -> str:
    if row == NONE:
        return "waiting for the next call of the step-through"
    response = attempt.model_calls[-1].response if attempt is not None and attempt.model_calls else None
    calls = response.get("toolCalls") if isinstance(response, dict) else None
    return f"{_attempt_text(rows, row)} {formatting.awaited(calls, limit=200)}"


def _attempt_text(rows: OutlineRows, row: int) -> str:
    """The attempt for people: `price [1], attempt 2 of 2`."""
    number, of = rows.attempt[row], rows.attempts_of(row)
    return one_line(str(rows.address(row)), limit=100) + (f", attempt {number} of {of}" if of > 1 else "")


def summary_lines(run: RunSummary, rows: OutlineRows, *, why: Iterable[Text] = ()) -> Iterator[Text]:
    """The status of the run, why it is so, its fields, and its totals."""
    took = "" if run.duration_ms is None else f" in {formatting.duration(run.duration_ms)}"
    mark, style = formatting.mark(run.status)
    yield fact("status", f"{mark} {run.status}{took}", style)
    yield from why
    yield fact("run", run.id)
    told = run.recording
    if told is not None:
        yield from _recording_lines(run, told)
    by = "" if run.started_by is None else f", by the key {run.started_by}"
    yield from _facts(
        ("flow", formatting.flow(run)),
        ("trigger", f"{run.trigger_type or formatting.UNKNOWN}{by}"),
        ("rerun of", run.rerun_of),
        ("session", run.session_id if told is None or told.session is None else None),
        ("started", formatting.local_time(run.started_at)),
    )
    if run.overridden:
        yield fact("overrides", one_line(formatting.overrides(run.overridden), limit=400), "yellow")
    if run.input is not None:
        yield fact("input", _kept(run.input if len(run.input) > 1 else run.input.get("inputs")))
    if run.result is not None:
        yield fact("result", _kept(run.result))
    totals = run.totals
    if totals is None:
        return
    numbers = {
        "completed": totals.completed,
        "failed": totals.failed - totals.cancelled,
        "cancelled": totals.cancelled,
        "skipped": totals.skipped,
    }
    steps = [f"{number:,} {name}" for name, number in numbers.items() if number]
    if totals.retried:
        steps.append(f"{formatting.counted(totals.retried, 'attempt')} failed and retried")
    yield fact("steps", ", ".join(steps) or "none yet")
    yield fact("tokens", formatting.tokens(totals.tokens))
    failed = totals.failed_cost_usd
    in_failed = None if failed is None else f"{formatting.money(failed)} of it in attempts that failed"
    costs = (formatting.least_money(totals), in_failed, formatting.unknown_costs(totals))
    yield fact("cost", "; ".join(filter(None, costs)))
    for name, model in totals.by_model.items() if len(totals.by_model) > 1 else ():
        tokens = None if model.tokens is None else formatting.counted(model.tokens.total, "token")
        calls, usd = formatting.counted(model.calls, "call"), formatting.money(model.cost_usd)
        parts = filter(None, (calls, tokens, usd, formatting.unknown_costs(model)))
        yield fact("", f"{one_line(name, limit=60)}: {', '.join(parts)}")
    if cut := formatting.cut_short(totals):
        which = ", ".join(_attempt_text(rows, row) for row in rows.cut[:MOST_CUT])
        more = f" and {len(rows.cut) - MOST_CUT:,} more" if len(rows.cut) > MOST_CUT else ""
        yield fact("warning", f"{cut}: {which}{more}" if which else cut, "yellow")
    if run.status == "completed" and totals.failed:
        yield fact("warning", formatting.counted(totals.failed, "failed step"), "yellow")


def _recording_lines(run: RunSummary, told: Recording) -> Iterator[Text]:
    # Its entry may be over, though the run is told to be running.
    end = "entry ended, waiting for the end of the run" if told.entry_ended else "not known yet"
    more = {"release": told.release, "environment": told.environment}
    service = [told.service, *(f"{name} {value}" for name, value in more.items() if value is not None)]
    yield from _facts(
        ("end", None if run.status in TERMINAL else end),
        ("trace", told.trace_id),
        ("service", None if told.service is None else ", ".join(filter(None, service))),
        ("session", told.session),
        ("user", told.user),
        ("tags", ", ".join(told.tags)),
        ("continues", told.continues),
        ("next run", run.continued_by),
    )
    for note in told.notes:
        yield fact("note", one_line(note, limit=400), "yellow")


def _facts(*told: tuple[str, str | None]) -> Iterator[Text]:
    return (fact(name, one_line(value, limit=400)) for name, value in told if value)


def _kept(value: Any) -> str:
    """An input or a result in a line: of an object whose only member is a text that text."""
    only = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    text = only if isinstance(only, str) else msgspec.json.encode(value).decode()
    line = one_line(text, limit=len(text))
    return line if len(line) <= CONTENT_CHARS else f"{line[:CONTENT_CHARS]}… (cut; --json has all of it)"


def overview_lines(
    run: RunSummary,
    rows: OutlineRows,
    read: ReadAttempt,
    *,
    named: str,
    width: int | None,
    within: int = NONE,
    most: int = MOST_SHOWN,
) -> Iterator[Text]:
    """An overview of a run, or with `within` of what is inside of that row; about `most` rows of it.

    `named` are the words by which commands name the run. `read` is called for some attempts, each once.
    """
    read = cache(read)
    size = len(rows) if within == NONE else rows.size[within]
    shown = choose_rows(rows, most=most, within=within)
    tree = list(tree_lines(rows, shown, within=within))
    begin_ms, end_ms = 0, max(run.duration_ms or 0, max(rows.start, default=0), max(rows.end, default=0))
    if within != NONE:
        begin_ms = max(rows.start[within], 0)
        end_ms = rows.end[within] if rows.end[within] != NONE else end_ms
    else:
        row = reason_row(run, rows)
        attempt = None if row == NONE else read(rows.address(row))
        yield from summary_lines(run, rows, why=why_lines(run, rows, row, attempt, named=named))
        if not tree:
            return
        yield Text()
    failed = (
        line.row
        for line in tree
        if line.row != NONE and rows.has_attempt(line.row) and rows.status(line.row) in ("failed", "retried")
    )
    errors = errors_of(rows, islice(failed, MOST_ERRORS), read)
    loops = run.loops
    yield from outline_lines(
        rows, tree, begin_ms=begin_ms, end_ms=end_ms, below=errors, loops=loops, width=width
    )
    if size > len(shown):
        folded = f"{size - len(shown):,} of {size:,} rows are folded"
        yield Text(f"({folded}; all of them: runglass runs show {named} --all)", "dim")
    if len(rows) < rows.total:
        yield Text(f"(of the run's {rows.total:,} rows the first {len(rows):,} were read)", "yellow")
