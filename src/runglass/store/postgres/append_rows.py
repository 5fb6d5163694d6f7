"""Appends as the rows that the function `append_rows` of the database takes.

With what a query may ask of a run that only its summary says.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from runglass.store.query_condition import folded
from runglass.store.records import Append
from runglass.store.run_tables import split_attempts


class _Tokens(msgspec.Struct, frozen=True, gc=False):
    total: int | None = None


class _Totals(msgspec.Struct, frozen=True, rename="camel"):
    cost_usd: str | None = None
    tokens: _Tokens | None = None
    by_model: dict[str, msgspec.Raw] = {}


class _Recording(msgspec.Struct, frozen=True, gc=False):
    service: str | None = None
    release: str | None = None
    environment: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class _Summary(msgspec.Struct, frozen=True, rename="camel"):
    started_at: str | None = None
    totals: _Totals | None = None
    error: _Error | None = None
    recording: _Recording | None = None


class RunFacts(NamedTuple):
    """What a query may ask of a run and only its summary says, as columns; None for what it does not say.

    `models` are the names of its models, with and without their provider, a line each; these and `error` are
    in small letters. Behind them is what a recording tells, as `service=NAME`: programs of the version before
    call `append_rows` with rows that have no place of its own for that.
    """

    started_ms: float | None = None
    live_cost_usd: float | None = None
    live_tokens: int | None = None
    models: str | None = None
    error: str | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Those of a row of `run`, by their names."""
        return self._asdict() | {"models": None if self.models is None else self.models.split("\n")}

    @classmethod
    def of(cls, summary: bytes) -> "RunFacts":
        """The facts that the summary tells; none of one that is not to be read."""
        try:
            told = msgspec.json.decode(summary, type=_Summary)
            began = None if told.started_at is None else datetime.fromisoformat(told.started_at)
            totals, error = told.totals or _Totals(), told.error
            cost = None if totals.cost_usd is None else float(totals.cost_usd)
        except (msgspec.MsgspecError, ValueError):
            return cls()
        names = {name for model in totals.by_model for name in (model, model.partition(":")[2] or model)}
        if told.recording is not None:
            facts = msgspec.structs.asdict(told.recording)
            names |= {f"tag={tag}" for tag in facts.pop("tags")}
            names |= {f"{field}={value}" for field, value in facts.items() if value is not None}
        return cls(
            None if began is None else began.timestamp() * 1000,
            cost,
            None if totals.tokens is None else totals.tokens.total,
            "\n".join(folded(name.replace("\n", " ")) for name in sorted(names)) or None,
            folded(f"{error.code} {error.message or ''}") if error and error.code is not None else None,
        )


def tables_of(batches: Sequence[tuple[bytes, Append]]) -> list[list[tuple[Any, ...]]]:
    """The rows of batches of as many runs, each with its id, as seven tables.

    These are batches, events, latest and earlier attempts, checkpoints, owed and dropped.
    """
    tables: tuple[list[tuple[Any, ...]], ...] = ([], [], [], [], [], [], [])
    rows, events, latest, earlier, checkpoints, owed, dropped = tables
    for batch_id, batch in batches:
        run_no, last = batch.run_no, batch.head + len(batch.events)
        rows.append(
            (
                *(run_no, batch.head, batch.fence, len(batch.events), batch_id),
                *(batch.status, batch.summary, batch.owner, batch.log_bytes, batch.open_bytes),
                *(batch.spent_usd, batch.reserved_usd),
                *RunFacts.of(batch.summary),
                *(batch.ended_at, *batch.numbers),
                *(batch.result, batch.error),
            )
        )
        events += [(run_no, seq, data) for seq, data in enumerate(batch.events, batch.head + 1)]
        of_step, before = split_attempts(batch.steps)
        latest += [(run_no, *step) for step in of_step]
        earlier += [(run_no, *step) for step in before]
        kept = {(each.step_id, each.loop_path): each.data for each in batch.checkpoints}
        checkpoints += [(run_no, *key, last, data) for key, data in kept.items()]
        owed += [(run_no, *each) for each in batch.owed]
        dropped += [(run_no, step_id) for step_id in dict.fromkeys(batch.dropped)]
    return list(tables)
