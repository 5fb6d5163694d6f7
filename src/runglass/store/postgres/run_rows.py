"""The row of a run, as the statements of several files select it, and what is found of it in its summary."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from runglass.store.records import RunRecord

RUN = (
    "SELECT no, id, project_id, flow_id, version, status, trigger_type, capture, session_id, head, fence,"
    " claims, summary, key_id, log_bytes, open_bytes, resume_head, cancel_reason FROM run"
)


class _Tokens(msgspec.Struct, frozen=True, gc=False):
    total: int | None = None


class _Totals(msgspec.Struct, frozen=True, rename="camel"):
    cost_usd: str | None = None
    tokens: _Tokens | None = None
    by_model: dict[str, msgspec.Raw] = {}


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class _Summary(msgspec.Struct, frozen=True, rename="camel"):
    started_at: str | None = None
    totals: _Totals | None = None
    error: _Error | None = None


class RunFacts(NamedTuple):
    """What a query may ask of a run and only its summary says, as columns; None for what it does not say.

    `models` are the names of its models, with and without their provider, a line each; these and `error` are
    in small letters.
    """

    started_ms: float | None = None
    cost_usd: float | None = None
    tokens: int | None = None
    models: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, summary: bytes) -> "RunFacts":
        """The facts that the summary tells; none of one that is not to be read."""
        try:
            told = msgspec.json.decode(summary, type=_Summary)
            began = None if told.started_at is None else datetime.fromisoformat(told.started_at)
            totals = told.totals or _Totals()
            cost = None if totals.cost_usd is None else float(totals.cost_usd)
        except (msgspec.MsgspecError, ValueError):
            return cls()
        names = {name for model in totals.by_model for name in (model, model.partition(":")[2] or model)}
        return cls(
            None if began is None else began.timestamp() * 1000,
            cost,
            None if totals.tokens is None else totals.tokens.total,
            "\n".join(folded(name.replace("\n", " ")) for name in sorted(names)) or None,
            _error_text(told.error),
        )


def run_of(row: Any) -> RunRecord:
    return RunRecord(**dict(zip(RunRecord.__struct_fields__, row, strict=True)))


def folded(text: str) -> str:
    """The text as it is compared: ASCII in small letters, and a mark for what PostgreSQL cannot hold."""
    return text.replace("\0", "\ufffd").encode(errors="replace").lower().decode()


def _error_text(error: _Error | None) -> str | None:
    if error is None or error.code is None:
        return None
    return folded(f"{error.code} {error.message or ''}")
