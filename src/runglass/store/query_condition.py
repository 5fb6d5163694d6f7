"""Terms of a query as SQL conditions on a row of `run`, with a name for each value.

Each is an expression that no index can serve: which index is searched is decided in `query_index.py` alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from runglass.wire.query import Range, RunQuery, Term, first_id

_DURATION = "coalesce(duration_ms, CASE WHEN ended_at IS NULL THEN {0.now_ms} - {0.started_ms} END)"
# Those of ended runs are in the index by project and id; `duration_ms` says for all three whether they are
# set.
_NUMBERS = {
    "version": "version",
    "duration": _DURATION,
    "cost": "CASE WHEN duration_ms IS NOT NULL THEN cost_usd ELSE {0.live_cost_usd} END",
    "tokens": "CASE WHEN duration_ms IS NOT NULL THEN tokens ELSE {0.live_tokens} END",
}
# Of a step that was skipped in so many iterations no more are looked at.
_STEP = (
    "EXISTS (SELECT 1 FROM (SELECT step.status FROM step WHERE run_no = run.no AND step_id = {} LIMIT 1000)"
    " AS step WHERE status <> 'skipped')"
)
_COLUMNS = {
    "status": "status",
    "flow": "flow_id",
    "trigger": "trigger_type",
    "kind": "CASE WHEN trigger_type IN ('plain', 'recorded') THEN trigger_type ELSE 'executed' END",
    "session": "session_id",
}


class SearchSql(NamedTuple):
    """What a kind of store says in its own way: of a run, what has no column in both, and how it is found.

    `has_model` is true where one of the models has one of the names in `{}`, in small letters; `is_recorded`
    where the field `{0}` of its recording, and `has_tag` where one of its tags, is one of `{1}`, as
    `FIELD=VALUE` in small letters. `position` is the function that says where in its first text the second
    one begins, 0 for nowhere. `error` has code and message in small letters.

    `rows` selects what it is told of the runs of a source from `:since` to below `:before`, the first so many
    by id or all, and gives the values of the keys. `events` selects some events of run `:run_no` behind
    `:seq`, with their data where these patterns may be in it, and gives the values that it names. `ids` makes
    one text of those that are `ok`.
    """

    now_ms: str
    started_ms: str
    live_cost_usd: str
    live_tokens: str
    has_model: str
    is_recorded: str
    has_tag: str
    error: str
    position: str
    rows: Callable[..., tuple[str, dict[str, Any]]]
    events: Callable[[Sequence[bytes]], tuple[str, dict[str, Any]]]
    ids: str


def condition_of(query: RunQuery, own: SearchSql, values: dict[str, Any]) -> str | None:
    """What a row must meet; None for nothing. `values` gets the values that it names.

    Terms of `text` are about other rows, and not in it.
    """

    def named(value: Any) -> str:
        name = f"t{len(values)}"
        values[name] = value
        return f":{name}"

    terms = [_term(term, own, named) for term in query.terms if term.field != "text"]
    return " AND ".join(terms) or None


def folded(text: str) -> str:
    """The text as it is compared: ASCII in small letters, and a mark for what PostgreSQL cannot hold."""
    return text.replace("\0", "\ufffd").encode(errors="replace").lower().decode()


def _term(term: Term, own: SearchSql, named: Callable[[Any], str]) -> str:
    match term.field:
        case "status" | "flow" | "trigger" | "kind" | "session":
            parts = [f"{_COLUMNS[term.field]} = ANY ({named(list(term.words))})"]
        case "created":
            # Ids begin with the time, and its end is not in it.
            parts = [
                _within("id", each._replace(high_open=True), lambda ms: named(first_id(int(ms))))
                for each in term.ranges
            ]
        case "step":
            parts = [_STEP.format(named(word)) for word in term.words]
        case "model":
            parts = [own.has_model.format(named([folded(word) for word in term.words]))]
        case "service" | "release" | "environment" | "user" | "tag":
            told = named([f"{term.field}={folded(word)}" for word in term.words])
            has_one = own.has_tag if term.field == "tag" else own.is_recorded
            parts = [has_one.format(term.field, told)]
        case "error":
            parts = [f"{own.position}({own.error}, {named(folded(word))}) > 0" for word in term.words]
        case _:
            number = _NUMBERS[term.field].format(own)
            parts = [
                _within(number, each, lambda bound: f"CAST({named(float(bound))} AS double precision)")
                for each in term.ranges
            ]
    # NULL, as the session of a run without one, is neither true nor false: it meets nothing but a negation.
    return f"{'NOT ' if term.negated else ''}coalesce(({' OR '.join(parts)}), false)"


def _within(expression: str, wanted: Range, value_of: Callable[[float], str]) -> str:
    bounds = (
        (">" if wanted.low_open else ">=", wanted.low),
        ("<" if wanted.high_open else "<=", wanted.high),
    )
    return " AND ".join(
        f"{expression} {sign} {value_of(bound)}" for sign, bound in bounds if bound is not None
    )
