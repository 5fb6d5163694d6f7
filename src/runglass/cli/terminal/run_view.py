"""A run as text: why it is as it is, its facts and totals, its tree, and the errors of what failed in it."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from rich.text import Text

from runglass.cli.terminal import formatting
from runglass.cli.terminal.formatting import fact
from runglass.cli.terminal.outline_rows import OutlineRows, StepAddress, TreeLine, choose_rows, tree_lines
from runglass.cli.terminal.outline_view import outline_lines
from runglass.cli.terminal.output import one_line
from runglass.log.trace import TERMINAL, ModelTotals, Recording, RunSummary, StepTrace
from runglass.outlines.outline import NONE

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


def error_lines(attempts: Mapping[int, StepTrace]) -> dict[int, Text]:
    """By row the error of each attempt that has one."""
    return {
        row: Text(formatting.error_text(attempt.error_context), "red")
        for row, attempt in attempts.items()
        if attempt.error_context is not None
    }


def _why_ended(run: RunSummary, rows: OutlineRows, row: int, attempt: StepTrace | None) -> str:
    error = "no reason is known" if run.error is None else formatting.run_error(run.error)
    if row == NONE:
        return one_line(error, limit=WHY_CHARS)
    where = f"{_attempt_text(rows, row)}: "
    if run.status == "cancelled":
        return one_line(f"{error}; during {_attempt_text(rows, row)}", limit=WHY_CHARS)
    if attempt is not None and attempt.error_context is not None:
        error = formatting.error_text(attempt.error_context)
    elif run.error is not None:
        error = ": ".join(part for part in (run.error.code, run.error.message) if part)
    return where + one_line(error, limit=WHY_CHARS)


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
    if run.recording is not None:
        yield from _recording_lines(run, run.recording)
    yield fact("flow", one_line(formatting.flow(run)))
    by = "" if run.started_by is None else f", by the key {run.started_by}"
    yield fact("trigger", one_line(f"{run.trigger_type or formatting.UNKNOWN}{by}"))
    if run.rerun_of is not None:
        yield fact("rerun of", one_line(run.rerun_of))
    if run.session_id is not None and (run.recording is None or run.recording.session is None):
        yield fact("session", one_line(run.session_id))
    yield fact("started", formatting.local_time(run.started_at))
    if run.overridden:
        yield fact("overrides", one_line(formatting.overrides(run.overridden), limit=400), "yellow")
    if run.input is not None:
        yield fact("input", _kept(run.input if len(run.input) > 1 else run.input.get("inputs")))
    if run.result is not None:
        yield fact("result", _kept(run.result))
    totals = run.totals
    if totals is None:
        return
    steps = [
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
        steps.append(f"{formatting.counted(totals.retried, 'attempt')} failed and retried")
    yield fact("steps", ", ".join(steps) or "none yet")
    yield fact("tokens", formatting.tokens(totals.tokens))
    costs = [formatting.least_money(totals)]
    if totals.failed_cost_usd is not None:
        costs.append(f"{formatting.money(totals.failed_cost_usd)} of it in attempts that failed")
    if unknown := formatting.unknown_costs(totals):
        costs.append(unknown)
    yield fact("cost", "; ".join(costs))
    if len(totals.by_model) > 1:
        for name, model in totals.by_model.items():
            yield fact("", f"{one_line(name, limit=60)}: {_of_model(model)}")
    if cut := formatting.cut_short(totals):
        which = ", ".join(_attempt_text(rows, row) for row in rows.cut[:MOST_CUT])
        more = f" and {len(rows.cut) - MOST_CUT:,} more" if len(rows.cut) > MOST_CUT else ""
        yield fact("warning", f"{cut}: {which}{more}" if which else cut, "yellow")
    if run.status == "completed" and totals.failed:
        yield fact("warning", formatting.counted(totals.failed, "failed step"), "yellow")


def _recording_lines(run: RunSummary, told: Recording) -> Iterator[Text]:
    if run.status not in TERMINAL:
        # Its entry may be over, though the run is told to be running.
        yield fact(
            "end", "entry ended, waiting for the end of the run" if told.entry_ended else "not known yet"
        )
    yield fact("trace", told.trace_id)
    if told.service is not None:
        more = ((name, getattr(told, name)) for name in ("release", "environment"))
        service = [told.service, *(f"{name} {value}" for name, value in more if value is not None)]
        yield fact("service", one_line(", ".join(service), limit=400))
    for name, value in (("session", told.session), ("user", told.user), ("tags", ", ".join(told.tags))):
        if value:
            yield fact(name, one_line(value, limit=200))
    if told.continues is not None:
        yield fact("continues", told.continues)
    if run.continued_by is not None:
        yield fact("next run", run.continued_by)
    for note in told.notes:
        yield fact("note", one_line(note, limit=400), "yellow")


def _kept(value: Any) -> str:
    """An input or a result in a line: of an object whose only member is a text that text."""
    only = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else None
    text = only if isinstance(only, str) else msgspec.json.encode(value).decode()
    line = one_line(text, limit=len(text))
    return line if len(line) <= CONTENT_CHARS else f"{line[:CONTENT_CHARS]}… (cut; --json has all of it)"


def _of_model(model: ModelTotals) -> str:
    parts = [formatting.counted(model.calls, "call"), formatting.money(model.cost_usd)]
    if model.tokens is not None:
        parts.insert(1, formatting.counted(model.tokens.total, "token"))
    if unknown := formatting.unknown_costs(model):
        parts.append(unknown)
    return ", ".join(parts)


class RunOverview:
    """An overview of a run, or with `within` of what is inside of that row; `most` rows of it.

    `wanted` are the attempts that it needs by row, for `lines`.
    """

    def __init__(
        self, run: RunSummary, rows: OutlineRows, *, within: int = NONE, most: int = MOST_SHOWN
    ) -> None:
        self._run = run
        self._rows = rows
        self._reason = reason_row(run, rows)
        shown = choose_rows(rows, most=most, within=within)
        self._within = within
        self._size = len(rows) if within == NONE else rows.size[within]
        self._hidden = self._size - len(shown)
        self._tree = list(tree_lines(rows, shown, within=within))
        failed = (line.row for line in self._tree if line.row != NONE and _has_error(rows, line.row))
        looked_up = dict.fromkeys([*([self._reason] if within == NONE else []), *islice(failed, MOST_ERRORS)])
        self.wanted: list[tuple[int, StepAddress]] = [
            (row, rows.address(row)) for row in looked_up if row != NONE
        ]

    def lines(self, attempts: Mapping[int, StepTrace], *, named: str, width: int | None) -> Iterator[Text]:
        """The overview; `named` are the words by which commands name the run."""
        run, rows = self._run, self._rows
        begin_ms = 0
        end_ms = max(run.duration_ms or 0, max(rows.start, default=0), max(rows.end, default=0))
        if self._within == NONE:
            why = why_lines(run, rows, self._reason, attempts.get(self._reason), named=named)
            yield from summary_lines(run, rows, why=why)
            if self._tree:
                yield Text()
        else:
            begin_ms = max(rows.start[self._within], 0)
            end_ms = rows.end[self._within] if rows.end[self._within] != NONE else end_ms
        if not self._tree:
            return
        errors = {row: error for row, error in error_lines(attempts).items() if _has_error(rows, row)}
        yield from outline_lines(
            rows,
            self._tree,
            begin_ms=begin_ms,
            end_ms=end_ms,
            below=errors,
            loops=run.loops,
            width=width,
        )
        if self._hidden:
            shown = f"{self._hidden:,} of {self._size:,} rows are folded"
            yield Text(f"({shown}; all of them: runglass runs show {named} --all{self._closer()})", "dim")
        if len(rows) < rows.total:
            yield Text(f"(of the run's {rows.total:,} rows the first {len(rows):,} were read)", "yellow")

    def _closer(self) -> str:
        """How to look into the first loop of which iterations are folded."""
        for line in self._tree:
            loop = line.row if line.folded is None else line.folded.parent
            if (
                loop != NONE
                and self._rows.kind(loop) == "loop"
                and (line.is_closed or line.folded is not None)
            ):
                step_id = shlex.quote(one_line(self._rows.name(loop)))
                path = ".".join(map(str, (*self._rows.loop_path(loop), "N")))
                return f"; iteration N: --inside {step_id} --loop {path}"
        return ""


def _has_error(rows: OutlineRows, row: int) -> bool:
    return rows.status(row) in ("failed", "retried") and rows.has_attempt(row)
