"""Terms of a query as SQL conditions on a row of `run`.

Each is an expression that no index can serve: which index is searched is decided in `query_index.py` alone.
What a run's own JSON says is read only from rows whose columns do not say it, as of runs that go on.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from runglass.support.clock import iso
from runglass.wire.query import Range, RunQuery, Term, first_id

_SUMMARY = "CASE WHEN json_valid(CAST(summary AS TEXT)) THEN CAST(summary AS TEXT) END"
# The columns are set when a run ends. `duration_ms` says for all three whether they are; it is in the index.
_TOKENS = (
    "CASE WHEN duration_ms IS NOT NULL THEN tokens"
    f" ELSE json_extract({_SUMMARY}, '$.totals.tokens.total') END"
)
_COST = (
    "CASE WHEN duration_ms IS NOT NULL THEN cost_usd"
    f" ELSE CAST(json_extract({_SUMMARY}, '$.totals.costUsd') AS REAL) END"
)
_DURATION = (
    "coalesce(duration_ms, CASE WHEN ended_at IS NULL THEN"
    f" (julianday(?) - julianday(json_extract({_SUMMARY}, '$.startedAt'))) * 86400000.0 END)"
)
_ERROR = (
    f"instr(lower(json_extract({_SUMMARY}, '$.error.code') || ' '"
    f" || coalesce(json_extract({_SUMMARY}, '$.error.message'), '')), ?) > 0"
)
_MODEL = (
    f"EXISTS (SELECT 1 FROM json_each({_SUMMARY}, '$.totals.byModel')"
    " WHERE ? COLLATE NOCASE IN (key, substr(key, instr(key, ':') + 1)))"
)
# Of a step that was skipped in so many iterations no more are looked at.
_STEP = (
    "EXISTS (SELECT 1 FROM (SELECT status FROM step WHERE run_no = run.no AND step_id = ? LIMIT 1000)"
    " WHERE status <> 'skipped')"
)

_COLUMNS = {"status": "status", "flow": "flow_id", "trigger": "trigger_type", "session": "session_id"}
_NUMBERS = {"version": "version", "duration": _DURATION, "cost": _COST, "tokens": _TOKENS}


class Condition(NamedTuple):
    """An SQL expression that is 1 for a row that meets it, with its parameters."""

    sql: str
    values: tuple[Any, ...] = ()


def condition_of(query: RunQuery) -> Condition | None:
    """What a row must meet; None for nothing. Terms of `text` are about other rows, and not in it."""
    parts = [_term(term) for term in query.terms if term.field != "text"]
    if not parts:
        return None
    return Condition(
        " AND ".join(part.sql for part in parts), tuple(value for part in parts for value in part.values)
    )


def folded(text: str) -> str:
    """The text as SQLite's `lower` gives it: capital letters of ASCII are small."""
    return text.encode().lower().decode()


def _term(term: Term) -> Condition:
    found = _one_of(term)
    # NULL, as the session of a run without one, is neither true nor false: it meets nothing but a negation.
    return Condition(f"{'NOT ' if term.negated else ''}coalesce({found.sql}, 0)", found.values)


def _one_of(term: Term) -> Condition:
    if (column := _COLUMNS.get(term.field)) is not None:
        return Condition(f"{column} IN ({', '.join('?' * len(term.words))})", term.words)
    match term.field:
        case "created":
            parts = [_created(each) for each in term.ranges]
        case "step":
            parts = [Condition(_STEP, (word,)) for word in term.words]
        case "model":
            parts = [Condition(_MODEL, (word,)) for word in term.words]
        case "error":
            parts = [Condition(_ERROR, (folded(word),)) for word in term.words]
        case _:
            parts = [_number(_NUMBERS[term.field], each) for each in term.ranges]
    return Condition(
        f"({' OR '.join(part.sql for part in parts)})",
        tuple(value for part in parts for value in part.values),
    )


def _number(expression: str, wanted: Range) -> Condition:
    # The only parameter of an expression is the time that it is now.
    now = (iso(datetime.now(UTC)),) * expression.count("?")
    parts: list[Condition] = []
    if wanted.low is not None:
        parts.append(Condition(f"{expression} {'>' if wanted.low_open else '>='} ?", (*now, wanted.low)))
    if wanted.high is not None:
        parts.append(Condition(f"{expression} {'<' if wanted.high_open else '<='} ?", (*now, wanted.high)))
    return Condition(
        " AND ".join(part.sql for part in parts), tuple(v for part in parts for v in part.values)
    )


def _created(wanted: Range) -> Condition:
    parts: list[Condition] = []
    if wanted.low is not None:
        parts.append(Condition("id >= ?", (first_id(int(wanted.low)),)))
    if wanted.high is not None:
        parts.append(Condition("id < ?", (first_id(int(wanted.high)),)))
    return Condition(
        " AND ".join(part.sql for part in parts), tuple(v for part in parts for v in part.values)
    )
