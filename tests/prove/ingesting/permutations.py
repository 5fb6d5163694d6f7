"""Seven things that come of one trace, in every order: what is known in the end is always the same."""

from collections import ChainMap
from itertools import permutations
from typing import Any

from msgspec import json

from runglass.engine.capture.capture import Capture
from runglass.log.events import StepRecorded, decode_event
from runglass.log.trace import TokenBreakdown
from runglass.recording.received import ReceivedLog, ReceivedSpan
from runglass.recording.recorded_run import RecordedRun
from runglass.recording.span_worker import pieces_of
from runglass.store.records import RunRecord
from tests.prove.ingesting.bodies import BEGAN_NS, span_id, trace_id

TRACE = trace_id(1)


def _span(
    number: int, parent: int, name: str, *attributes: dict[str, Any], ended: bool = True
) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id=TRACE,
        span_id=span_id(number),
        parent_id=span_id(parent) if parent else None,
        name=name,
        kind=1,
        start_ns=BEGAN_NS + number,
        end_ns=BEGAN_NS + 100 - number if ended else 0,
        status=0,
        status_message="",
        attributes=dict(ChainMap(*attributes)),
        events=[],
        links=[],
        scope="prove",
        scope_version="1",
        resource={"service.name": "prove"},
    )


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"gen_ai.usage.input_tokens": prompt, "gen_ai.usage.output_tokens": completion}


_CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.system": "openai"}
_TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "work"}
_AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner"}
SEVEN: tuple[ReceivedSpan | ReceivedLog, ...] = (
    _span(1, 0, "plan", _AGENT, _usage(35, 9)),
    _span(2, 1, "work", _CHAT, _usage(20, 5)),
    _span(3, 1, "work", _CHAT, _usage(10, 4)),
    _span(4, 2, "work", _TOOL),
    _span(5, 4, "work", _TOOL, ended=False),
    _span(5, 4, "work", _TOOL, {"gen_ai.tool.call.result": "done"}),
    ReceivedLog(
        trace_id=TRACE,
        span_id=span_id(2),
        at_ns=BEGAN_NS + 50,
        name="gen_ai.user.message",
        body={"content": "hello"},
        severity=9,
        attributes={"gen_ai.system": "openai"},
        scope="prove",
        scope_version="1",
        resource={"service.name": "prove"},
    ),
)
"""Nested, with the same names, usage on the parent, a log of a span, and what is patched after its end."""


def permutations_told() -> str:
    """A line of the report. Raises AssertionError that has the order."""
    [piece] = pieces_of(SEVEN, flow=None, capture=Capture("redacted"))
    spans = piece.spans
    expected: Any = None
    orders = list(permutations(range(len(spans))))
    for order in orders:
        run = RecordedRun(_record(), TRACE)
        run.begin("2026-01-01T00:00:00.000Z")
        known: dict[str, StepRecorded] = {}
        steps: dict[str, dict[str, Any]] = {}
        for number in (*order, *order):
            # Each comes twice: the second time nothing of it is new.
            key = spans[number].head.span_id
            event = run.record_span(spans[number], known.get(key), "2026-01-01T00:00:00.000Z")
            if event is not None:
                recorded = decode_event(event)
                assert isinstance(recorded, StepRecorded)
                known[key] = recorded
        batch = run.append()
        assert batch is not None
        for row in batch.steps:
            step = json.decode(row.data)
            # The n-th of those with one name is so in order of arrival.
            del step["loopPath"]
            steps[step["spanId"]] = step
        summary = run.fold.summary
        found = steps, json.decode(json.encode(summary.totals)), json.decode(json.encode(summary.recording))
        if expected is None:
            # What the agent tells is more than its calls add up to, and counts for nothing.
            assert summary.totals is not None
            assert summary.totals.tokens == TokenBreakdown(30, 9, 39), summary.totals
            expected = found
        assert found == expected, f"order {order}: {found} and not {expected}"
    return f"{len(orders):,} orders of seven spans and logs, each twice: the same trace and the same sums"


def _record() -> RunRecord:
    return RunRecord(
        no=1,
        id="00000000-0000-7000-8000-000000000001",
        project_id=1,
        flow_id="flow",
        version=0,
        status="pending",
        trigger_type="recorded",
        capture="full",
        session_id=None,
        head=0,
        fence=0,
        claims=0,
        summary=json.encode({"id": "r", "flowId": "flow", "status": "pending"}),
    )
