"""Values as text for a terminal: durations, times, money, iterations; `–` for a value that is not known."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from rich.text import Text

from runglass.cli.terminal.output import one_line
from runglass.errors import is_cancellation
from runglass.log.events import StepEvent
from runglass.log.money import format_usd
from runglass.log.trace import (
    TERMINAL,
    ModelTotals,
    RunError,
    RunSummary,
    RunTotals,
    StepTrace,
    TokenBreakdown,
)

UNKNOWN = "–"
CUT = "text truncated (max_tokens)"

MARKS: dict[str, tuple[str, str]] = {
    "completed": ("✓", "green"),
    "retried": ("↻", "yellow"),
    "cancelled": ("⊘", "dim"),
    "failed": ("✗", "bold red"),
    "running": ("▷", "cyan"),
    "pending": ("▷", "cyan"),
    "waiting": ("‖", "yellow"),
    "paused": ("‖", "yellow"),
    "skipped": ("–", "dim"),
}
"""Mark and colour of each status of a run, a step or a row: colours are not for everybody."""


def mark(status: str) -> tuple[str, str]:
    """Mark and colour of a status, also of one that a newer server may tell."""
    return MARKS.get(status, ("?", ""))


def fact(name: str, value: str, style: str = "") -> Text:
    """A line of a run or an attempt: what it tells, and that."""
    return Text.assemble((f"{name:<11}", "bold"), (value, style))


def duration(ms: int | None) -> str:
    """Milliseconds as `12 ms`, `1.23 s`, `2 m 03 s` or `1 h 02 m`."""
    if ms is None:
        return UNKNOWN
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} m {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def moment(text: str | None) -> datetime | None:
    """A wire time, aware; None where there is none or it cannot be read."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def local_time(text: str | None, *, timespec: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """A wire time in the zone of this machine, which it names: `2026-11-24 15:29:03 +01:00`."""
    found = moment(text)
    if found is None:
        return UNKNOWN
    local = found.astimezone().isoformat(sep=" ", timespec=timespec)
    return f"{local[:-6]} {local[-6:]}"


def age(text: str | None, *, now: datetime) -> str:
    """A wire time as `now`, `12 s ago`, `3 min ago`, `5 h ago` or `2 d ago`."""
    found = moment(text)
    if found is None:
        return UNKNOWN
    seconds = int((now - found).total_seconds())
    if seconds < 1:
        return "now"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def money(usd: str | Decimal | None) -> str:
    """A decimal string of US dollars as `$0.000045`, never in scientific notation."""
    if usd is None:
        return UNKNOWN
    try:
        return f"${format_usd(Decimal(usd))}"
    except InvalidOperation:
        return str(usd)


def least_money(totals: RunTotals) -> str:
    """The cost of a run: `≥ $0.12` where some costs are not known, `≈ $0.12` where they are estimated."""
    if totals.estimated_cost_usd is not None:
        return f"≈ {money(totals.cost_usd)}"
    is_partial = totals.cost_usd is not None and totals.unmetered_calls + totals.unpriced_calls > 0
    return f"≥ {money(totals.cost_usd)}" if is_partial else money(totals.cost_usd)


def unknown_costs(calls: RunTotals | ModelTotals) -> str:
    """The number of calls without a known cost, by reason; empty where every cost is known."""
    reasons = {"no usage reported": calls.unmetered_calls, "no known price": calls.unpriced_calls}
    return ", ".join(
        f"{why} for {counted(number, 'model call')}" for why, number in reasons.items() if number
    )


def cut_short(totals: RunTotals) -> str:
    """The number of answers that a limit of tokens cut; empty where there is none."""
    number = totals.finish_reasons.get("length", 0)
    return f"{counted(number, 'text')} truncated (max_tokens)" if number else ""


def tokens(used: TokenBreakdown | None) -> str:
    """`7 prompt + 2 completion = 9`."""
    if used is None:
        return UNKNOWN
    return f"{used.prompt:,} prompt + {used.completion:,} completion = {used.total:,}"


def flow(run: RunSummary) -> str:
    """The flow and version of a run: `greet v3`, `greet draft`; its id where no slug was recorded.

    A recorded run has no version, but a name of its own: `shop: answer ticket`.
    """
    if run.recording is not None and run.recording.name not in (None, run.flow_slug):
        return f"{run.flow_slug or run.flow_id}: {run.recording.name}"
    if run.flow_slug is None or run.version is None or run.recording is not None:
        return run.flow_slug or run.flow_id
    return f"{run.flow_slug} v{run.version}" if run.version else f"{run.flow_slug} draft"


def overrides(names: Iterable[str]) -> str:
    """What a run's callers set anew: `ask.prompt, ask.settings (all replaced), ask.input.text`."""
    return ", ".join(
        f"{name} (all replaced)" if name.endswith(".settings") and name.count(".") == 1 else name
        for name in names
    )


def steps(run: RunSummary) -> str:
    """How many steps a run ran, each iteration by itself: `46 (1 retried)`; of one that goes on `18/40`."""
    if run.totals is None:
        return UNKNOWN
    done = run.totals.completed + run.totals.failed
    expected = run.step_count if run.expected_steps is None else run.expected_steps
    # Steps that are run anew, in a step-through, are more than were expected.
    total = (expected or 0) - run.totals.skipped
    of_total = f"/{total:,}" if run.status not in TERMINAL and done <= total else ""
    retried = f" ({run.totals.retried:,} retried)" if run.totals.retried else ""
    return f"{done:,}{of_total}{retried}"


def run_error(error: RunError) -> str:
    """The error of a run: `CODE_ERROR in step count: division by zero`."""
    if is_cancellation({"code": error.code}):
        return cancelled(error.message)
    where = "" if error.step_id is None else f" in step {error.step_id}"
    return f"{error.code}{where}" + ("" if error.message is None else f": {error.message}")


def cancelled(reason: str | None) -> str:
    """Why a run was cancelled: `cancelled by the key nk_live_5f3a91c2`."""
    if not reason:
        return "cancelled"
    return reason if reason.startswith("cancelled") else f"cancelled: {reason}"


def finish(reason: str) -> str:
    """The reason that a model gave for the end of its answer; `CUT` where a limit of tokens ended it."""
    return CUT if reason == "length" else f"ended by {one_line(reason, limit=40)}"


def called(tools: object) -> list[str]:
    """The names in a list of tools, or of calls of them."""
    inner = [tool.get("function", tool) if isinstance(tool, dict) else tool for tool in as_list(tools)]
    return [str(each.get("name")) if isinstance(each, dict) else str(each) for each in inner]


def as_list(value: object) -> list[Any]:
    """A list as it is; of anything else, which some other program may have sent, nothing."""
    return value if isinstance(value, list) else []


def awaited(calls: object, *, limit: int) -> str:
    """What a paused step does: `waiting for the results of 2 tool calls: search, fetch`."""
    if not (names := called(calls)):
        return "waiting for tool results"
    number, named = counted(len(names), "tool call"), one_line(", ".join(names), limit=limit)
    return f"waiting for the results of {number}: {named}"


def count(number: int | None) -> str:
    """A whole number with thousands separated."""
    return UNKNOWN if number is None else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number_of_bytes: int | None) -> str:
    """Bytes as `812 B`, `12.3 kB` or `4.5 MB`."""
    if number_of_bytes is None:
        return UNKNOWN
    if number_of_bytes < 1000:
        return f"{number_of_bytes} B"
    kb = number_of_bytes / 1000
    return f"{kb:.1f} kB" if kb < 1000 else f"{kb / 1000:.1f} MB"


def iteration(step: StepEvent | StepTrace) -> str:
    """`3`, or `0.3` in nested loops; empty outside of loops."""
    if step.loop_path:
        return ".".join(map(str, step.loop_path))
    return "" if step.loop_index is None else str(step.loop_index)


def step_name(step: StepEvent | StepTrace) -> str:
    """The step and its iteration: `cell [0.3]`."""
    where = iteration(step)
    return one_line(step.step_id, limit=64) + (f" [{where}]" if where else "")


def error_text(error: object) -> str:
    """A recorded error as `CODE: message`."""
    if not isinstance(error, dict):
        return "no reason was recorded" if error is None else str(error)
    code, message = error.get("code"), error.get("message")
    return ": ".join(str(part) for part in (code, message) if part) or str(error)
