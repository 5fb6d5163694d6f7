"""Terms of a query as SQL conditions on a row of `run`, with a question mark for each parameter.

Which index is searched is decided in `query_index.py` alone. What a run's own JSON says of it is in
columns, set by each append (`append_rows.py`), so that no statement reads JSON.
"""

from typing import Any, NamedTuple

from runglass.store.postgres.append_rows import folded
from runglass.wire.query import Range, RunQuery, Term, first_id

# Those of ended runs are in the index by project and id; `duration_ms` says for all three whether they are
# set.
_TOKENS = "CASE WHEN duration_ms IS NOT NULL THEN tokens ELSE live_tokens END"
_COST = "CASE WHEN duration_ms IS NOT NULL THEN cost_usd ELSE live_cost_usd END"
_NOW_MS = "extract(epoch FROM transaction_timestamp())::float8 * 1000"
_DURATION = f"coalesce(duration_ms, CASE WHEN ended_at IS NULL THEN {_NOW_MS} - started_ms END)"
# Of a step that was skipped in so many iterations no more are looked at.
_STEP = (
    "EXISTS (SELECT FROM (SELECT step.status FROM step WHERE run_no = run.no AND step_id = ? LIMIT 1000)"
    " AS step WHERE status <> 'skipped')"
)

_COLUMNS = {"status": "status", "flow": "flow_id", "trigger": "trigger_type", "session": "session_id"}
_NUMBERS = {"version": "version", "duration": _DURATION, "cost": _COST, "tokens": _TOKENS}


class Condition(NamedTuple):
    """An SQL expression that is true for a row that meets it, with its parameters."""

    sql: str
    values: tuple[Any, ...] = ()


def condition_of(query: RunQuery) -> Condition | None:
    """What a row must meet; None for nothing. Terms of `text` are about other rows, and not in it."""
    parts = [_term(term) for term in query.terms if term.field != "text"]
    return _joined(" AND ", parts) if parts else None


def _term(term: Term) -> Condition:
    found = _one_of(term)
    # NULL, as the session of a run without one, is neither true nor false: it meets nothing but a negation.
    return Condition(f"{'NOT ' if term.negated else ''}coalesce({found.sql}, false)", found.values)


def _one_of(term: Term) -> Condition:
    if (column := _COLUMNS.get(term.field)) is not None:
        return Condition(f"{column} = ANY (?::text[])", (list(term.words),))
    match term.field:
        case "created":
            parts = [_created(each) for each in term.ranges]
        case "step":
            parts = [Condition(_STEP, (word,)) for word in term.words]
        case "model":
            parts = [Condition("models && ?::text[]", ([folded(word) for word in term.words],))]
        case "error":
            parts = [Condition("strpos(error, ?) > 0", (folded(word),)) for word in term.words]
        case _:
            parts = [_number(_NUMBERS[term.field], each) for each in term.ranges]
    joined = _joined(" OR ", parts)
    return Condition(f"({joined.sql})", joined.values)


def _number(expression: str, wanted: Range) -> Condition:
    parts: list[Condition] = []
    if wanted.low is not None:
        sign = ">" if wanted.low_open else ">="
        parts.append(Condition(f"{expression} {sign} ?::float8", (float(wanted.low),)))
    if wanted.high is not None:
        sign = "<" if wanted.high_open else "<="
        parts.append(Condition(f"{expression} {sign} ?::float8", (float(wanted.high),)))
    return _joined(" AND ", parts)


def _created(wanted: Range) -> Condition:
    parts: list[Condition] = []
    if wanted.low is not None:
        parts.append(Condition("id >= ?", (first_id(int(wanted.low)),)))
    if wanted.high is not None:
        parts.append(Condition("id < ?", (first_id(int(wanted.high)),)))
    return _joined(" AND ", parts)


def _joined(operator: str, parts: list[Condition]) -> Condition:
    return Condition(
        operator.join(part.sql for part in parts), tuple(value for part in parts for value in part.values)
    )
