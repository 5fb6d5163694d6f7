"""What a query asks of a row in SQLite alone.

What a run's own JSON says is read only from rows whose columns do not say it, as of runs that go on.
"""

from collections.abc import Sequence
from functools import partial

from runglass.store import query_condition
from runglass.store.query_condition import Condition, OwnTerms, joined

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
    f" (julianday('now') - julianday(json_extract({_SUMMARY}, '$.startedAt'))) * 86400000.0 END)"
)
_ERROR = (
    f"instr(lower(json_extract({_SUMMARY}, '$.error.code') || ' '"
    f" || coalesce(json_extract({_SUMMARY}, '$.error.message'), '')), ?) > 0"
)
_MODEL = (
    f"EXISTS (SELECT 1 FROM json_each({_SUMMARY}, '$.totals.byModel')"
    " WHERE ? COLLATE NOCASE IN (key, substr(key, instr(key, ':') + 1)))"
)


def _model(words: Sequence[str]) -> Condition:
    return joined(" OR ", [Condition(_MODEL, (word,)) for word in words])


_OWN_TERMS = OwnTerms(
    numbers={"version": "version", "duration": _DURATION, "cost": _COST, "tokens": _TOKENS},
    model=_model,
    # Capital letters of ASCII are small, as `lower` of SQLite gives them.
    error=lambda word: Condition(_ERROR, (word.encode().lower().decode(),)),
)
condition_of = partial(query_condition.condition_of, own=_OWN_TERMS)
