"""Spans of other programs, as the run writer sees them, and the run that they add up to."""

from collections.abc import Iterable
from typing import Any

import msgspec

from runglass.engine.journal.run_writer import step_rows
from runglass.log.events import KnownEvent, RunStarted, StepRecorded
from runglass.log.fold import RunFold, StepChange
from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall, RunSummary, StepTrace, TokenBreakdown
from runglass.outlines.outline import Outline
from runglass.outlines.span_builder import SpanOutlineBuilder
from runglass.recording.merge import merge
from tests.records import there

EPOCH_NS = 1_800_000_000 * 10**9
AT = "2027-01-15T08:00:00.000Z"
END: dict[str, Any] = {"execution_id": "r", "at": "2027-01-15T08:02:00.000Z", "run_id": "r"}


def raw(value: Any) -> Any:
    return msgspec.Raw(msgspec.json.encode(value))


def at(ms: float) -> str:
    """Nanoseconds since 1970 as text, `ms` after the runs of these tests began."""
    return str(EPOCH_NS + int(ms * 1_000_000))


def id_of(number: int) -> str:
    return f"{number:016x}"


def span(
    number: int, parent: int | None = None, *, start: float = 0, end: float | None = 100, **more: Any
) -> SpanState:
    """A span with the id `number`; times are milliseconds after the start of the run."""
    return SpanState(
        span_id=id_of(number),
        parent_span_id=None if parent is None else id_of(parent),
        **{
            "name": f"span {number}",
            "start_time_unix_nano": at(start),
            "end_time_unix_nano": None if end is None else at(end),
            **more,
        },
    )


def used(prompt: int, completion: int, usd: str | None = None, *, model: str = "m") -> dict[str, Any]:
    """The fields of a span that tells usage."""
    tokens = TokenBreakdown(prompt, completion, prompt + completion)
    return {"tokens": tokens, "cost_usd": usd, "model_used": model}


def asked(
    prompt: int, completion: int, usd: str | None = None, *, model: str = "m", **more: Any
) -> dict[str, Any]:
    """The fields of a span that is a call of a model."""
    usage = used(prompt, completion, usd, model=model)
    unknown = "no_price" if usd is None else None
    call = ModelCall(number=1, model=model, cost_unknown=unknown, finish_reason="stop", **usage, **more)
    return {"kind": "llm", "is_gen_ai": True, **usage, "model_calls": (call,)}


class Recording:
    """A run as the run writer writes it: states become one, get an address and are folded."""

    def __init__(self, spans: Iterable[SpanState] = ()) -> None:
        self.fold = RunFold(RunSummary(id="r", flow_id="f", status="pending"))
        self.known: dict[str, SpanState] = {}
        self.steps: dict[int, StepTrace] = {}
        self.events: list[KnownEvent] = []
        self.add(
            RunStarted(
                execution_id="r",
                at=AT,
                run_id="r",
                flow_id="f",
                step_count=0,
                trigger_type="plain",
                version=0,
                trace_id="0af7651916cd43dd8448eb211c80319c",
            )
        )
        self.take(spans)

    def add(self, event: KnownEvent) -> None:
        msgspec.structs.force_setattr(event, "seq", len(self.events) + 1)
        self.events.append(event)
        self.steps |= dict(self.fold.apply(event))

    def take(self, spans: Iterable[SpanState]) -> None:
        for new in spans:
            known = self.known.get(new.span_id)
            state = self.known[new.span_id] = merge(known, new)
            if state is not known:
                self.record(state)

    def record(self, state: SpanState) -> None:
        step_id, path = there(self.fold.tree).address_of(state.span_id, state.name)
        event = StepRecorded(execution_id="r", at=AT, step_id=step_id, loop_path=path, span=state)
        self.add(event)

    def outline(self) -> Outline:
        """As a server makes it of the rows of its steps."""
        run = self.summary
        entry = there(run.recording).entry_span_id
        builder = SpanOutlineBuilder(started_at=run.started_at, seq=1, entry=entry)
        rows = step_rows(StepChange(*each) for each in sorted(self.steps.items()))
        builder.add(
            (row.position, row.step_id, row.loop_path, row.attempt, row.status, row.data) for row in rows
        )
        *_, outline = builder.finish()
        return there(outline)

    @property
    def summary(self) -> RunSummary:
        return self.fold.summary
