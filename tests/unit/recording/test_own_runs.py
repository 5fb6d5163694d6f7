"""Spans of a Runglass that come back to one."""

from typing import Any

import pytest

from runglass.recording.span_worker import link_to_run, own_run_id
from tests.unit.recording.emitted import span

RUN = "01980000-0000-7000-8000-000000000001"
ROOT: dict[str, Any] = {"runglass.run.id": RUN, "runglass.trigger": "api", "gen_ai.workflow.name": "flow"}


@pytest.mark.parametrize(
    ("attributes", "scope", "run_id"),
    [
        (ROOT, "runglass", RUN),
        ({"runglass.run.id": RUN.upper()}, "runglass", RUN),
        ({}, "runglass", None),
        ({"runglass.run.id": "nonsense"}, "runglass", None),
        ({"runglass.run.id": 7}, "runglass", None),
        ({"runglass.run.id": [RUN]}, "runglass", None),
        ({"runglass.run.id": RUN}, "opentelemetry.instrumentation.openai_v2", None),
    ],
)
def test_a_span_of_ours_and_no_other_names_its_run(
    attributes: dict[str, Any], scope: str, run_id: str | None
) -> None:
    assert own_run_id(span(attributes, scope=scope)) == run_id


def test_the_caller_s_trace_keeps_the_run_as_one_step_without_usage_and_content() -> None:
    told = ROOT | {"runglass.cost_usd": "0.1", "gen_ai.usage.input_tokens": 7, "runglass.status": "failed"}
    whole = span(told | {"runglass.input": "{}", "runglass.output": "{}"}, ("exception", {}))
    assert link_to_run(whole) == whole._replace(attributes=ROOT | {"runglass.status": "failed"}, events=[])


def test_nothing_else_of_the_run_is_kept() -> None:
    assert link_to_run(span({"runglass.run.id": RUN, "runglass.kind": "step"})) is None
    assert link_to_run(span(ROOT, parent_id=None)) is None, "no span of another program called it"
