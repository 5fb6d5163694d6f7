"""Terms of a query as SQL conditions on a row of `run`, with a question mark for each parameter.

Each is an expression that no index can serve: which index is searched is decided in `query_index.py` of each
kind of store alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from runglass.wire.query import Range, RunQuery, Term, first_id

# Of a step that was skipped in so many iterations no more are looked at.
_STEP = (
    "EXISTS (SELECT 1 FROM (SELECT step.status FROM step WHERE run_no = run.no AND step_id = ? LIMIT 1000)"
    " AS step WHERE status <> 'skipped')"
)
_COLUMNS = {"status": "status", "flow": "flow_id", "trigger": "trigger_type", "session": "session_id"}


class Condition(NamedTuple):
    """An SQL expression that is true for a row that meets it, with its parameters."""

    sql: str
    values: tuple[Any, ...] = ()


class OwnTerms(NamedTuple):
    """What a kind of store asks in its own way: expressions for numbers by field, and two kinds of terms."""

    numbers: Mapping[str, str]
    model: Callable[[Sequence[str]], Condition]
    error: Callable[[str], Condition]


def condition_of(query: RunQuery, own: OwnTerms) -> Condition | None:
    """What a row must meet; None for nothing. Terms of `text` are about other rows, and not in it."""
    parts = [_term(term, own) for term in query.terms if term.field != "text"]
    return joined(" AND ", parts) if parts else None


def joined(operator: str, parts: Sequence[Condition]) -> Condition:
    """The conditions with that operator between."""
    return Condition(
        operator.join(part.sql for part in parts), tuple(value for part in parts for value in part.values)
    )


def _term(term: Term, own: OwnTerms) -> Condition:
    column = _COLUMNS.get(term.field)
    match term.field:
        case _ if column is not None:
            parts = [Condition(f"{column} IN ({', '.join('?' * len(term.words))})", tuple(term.words))]
        case "created":
            parts = [_created(each) for each in term.ranges]
        case "step":
            parts = [Condition(_STEP, (word,)) for word in term.words]
        case "model":
            parts = [own.model(term.words)]
        case "error":
            parts = [own.error(word) for word in term.words]
        case _:
            parts = [_number(own.numbers[term.field], each) for each in term.ranges]
    sql, values = joined(" OR ", parts)
    # NULL, as the session of a run without one, is neither true nor false: it meets nothing but a negation.
    return Condition(f"{'NOT ' if term.negated else ''}coalesce(({sql}), false)", values)


def _number(expression: str, wanted: Range) -> Condition:
    bounds = (
        (wanted.low, ">" if wanted.low_open else ">="),
        (wanted.high, "<" if wanted.high_open else "<="),
    )
    return joined(
        " AND ",
        [
            Condition(f"{expression} {sign} CAST(? AS double precision)", (float(bound),))
            for bound, sign in bounds
            if bound is not None
        ],
    )


def _created(wanted: Range) -> Condition:
    bounds = ((wanted.low, ">="), (wanted.high, "<"))
    return joined(
        " AND ",
        [Condition(f"id {sign} ?", (first_id(int(ms)),)) for ms, sign in bounds if ms is not None],
    )
