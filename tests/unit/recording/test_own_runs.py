"""Spans of a Runglass that come back to one."""

from typing import Any

import pytest

from runglass.recording.own_runs import link_to_run, own_run_id
from runglass.recording.received import ReceivedSpan, SpanEvent

RUN = "01980000-0000-7000-8000-000000000001"
ROOT: dict[str, Any] = {"runglass.run.id": RUN, "runglass.trigger": "api", "gen_ai.workflow.name": "flow"}


def received(
    *, parent: str | None = "b7ad6b7169203331", scope: str = "runglass", **fields: Any
) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="00f067aa0ba902b7",
        parent_id=parent,
        name="invoke_workflow flow",
        kind=1,
        start_ns=1,
        end_ns=2,
        status=2,
        status_message="it broke",
        events=[SpanEvent(1, "exception", {})],
        links=[],
        scope=scope,
        scope_version="1",
        resource={"service.name": "runglass"},
        **{"attributes": ROOT, **fields},
    )


def test_a_span_of_ours_names_its_run() -> None:
    assert own_run_id(received()) == RUN
    assert own_run_id(received(attributes={"runglass.run.id": RUN.upper()})) == RUN


@pytest.mark.parametrize(
    ("attributes", "scope"),
    [
        ({}, "runglass"),
        ({"runglass.run.id": "nonsense"}, "runglass"),
        ({"runglass.run.id": 7}, "runglass"),
        ({"runglass.run.id": [RUN]}, "runglass"),
        ({"runglass.run.id": RUN}, "opentelemetry.instrumentation.openai_v2"),
    ],
)
def test_any_other_span_names_none(attributes: dict[str, Any], scope: str) -> None:
    assert own_run_id(received(attributes=attributes, scope=scope)) is None


def test_the_caller_s_trace_keeps_the_run_as_one_step_without_usage_and_content() -> None:
    told = ROOT | {
        "runglass.cost_usd": "0.1",
        "gen_ai.usage.input_tokens": 7,
        "runglass.input": "{}",
        "runglass.output": "{}",
        "runglass.status": "failed",
    }
    whole = received(attributes=told)
    link = link_to_run(whole)
    assert link == whole._replace(attributes=ROOT | {"runglass.status": "failed"}, events=[])
    assert own_run_id(whole) == RUN


def test_nothing_else_of_the_run_is_kept() -> None:
    assert link_to_run(received(attributes={"runglass.run.id": RUN, "runglass.kind": "step"})) is None
    assert link_to_run(received(parent=None)) is None, "no span of another program called it"
