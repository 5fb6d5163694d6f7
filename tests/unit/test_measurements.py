"""What a process counts, and within which bounds."""

import pytest

from runglass.log.events import FlowFailed, StepCompleted, StepModelCall, StepStarted
from runglass.log.measurements import MOST_NAMES, OTHER, SECONDS, Histogram, Measurements
from runglass.log.trace import ModelCall, TokenBreakdown
from runglass.runtime.metrics.collector import MOST_PROJECTS, bounded

KEY = {"execution_id": "r", "step_id": "s", "attempt": 1}


def model_call(provider: str | None, **more: object) -> StepModelCall:
    return StepModelCall(**KEY, model_call=ModelCall(number=1, model="m", provider=provider, **more))  # type: ignore[arg-type]


def test_a_duration_is_counted_up_to_the_bound_that_it_does_not_exceed() -> None:
    histogram = Histogram()
    for duration_s in (0.0, SECONDS[0], SECONDS[0] + 1e-9, SECONDS[-1], SECONDS[-1] + 1):
        histogram.add(duration_s)
    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-2:] == [1, 1]
    assert sum(histogram.counts) == 5


def test_events_are_counted_by_what_they_tell() -> None:
    found = Measurements()
    found.note([StepStarted(**KEY, name="s", step_index=0)])  # type: ignore[arg-type]
    found.note([StepCompleted(**KEY, name="s", step_index=0, duration_ms=30)])  # type: ignore[arg-type]
    found.note([FlowFailed(execution_id="r", run_id="r", error=None)])
    tokens = TokenBreakdown(prompt=3, completion=4, total=7)
    found.note([model_call("openai", tokens=tokens, cost_usd="0.25")])
    found.note([model_call("openai", error_code="TIMEOUT", cost_unknown="no_usage")])
    assert found.attempt_s["completed"].total_s == pytest.approx(0.03)
    assert found.ended_runs == {"completed": 0, "failed": 1, "cancelled": 0}
    assert found.model_calls == {("openai", "ok"): 1, ("openai", "TIMEOUT"): 1}
    assert found.tokens == {("openai", "prompt"): 3, ("openai", "completion"): 4}
    assert str(found.cost_usd["openai"]) == "0.25"
    assert found.unknown_costs == {"openai": 1}


def test_providers_that_callers_make_up_are_counted_together() -> None:
    found = Measurements()
    for number in range(MOST_NAMES + 100):
        found.note([model_call(f"made-up-{number}")])
    found.note([model_call("x" * 1000)])
    found.note([model_call(None)])
    assert len(found.model_calls) == MOST_NAMES + 1
    assert found.model_calls[OTHER, "ok"] == 102


def test_projects_beyond_the_busiest_are_counted_together() -> None:
    runs = {(f"acme/p{number}", "running"): number + 1 for number in range(MOST_PROJECTS + 5)}
    runs["acme/p0", "paused"] = 1000
    counted = bounded(runs)
    assert len({project for project, _ in counted}) == MOST_PROJECTS + 1
    assert sum(counted.values()) == sum(runs.values())
    assert counted["acme/p0", "paused"] == 1000
    assert counted[OTHER, "running"] == 2 + 3 + 4 + 5 + 6
