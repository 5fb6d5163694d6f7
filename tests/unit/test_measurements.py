"""What a process counts, and within which bounds."""

from runglass.log.events import StepModelCall
from runglass.log.measurements import MOST_NAMES, OTHER, Measurements
from runglass.log.trace import ModelCall
from runglass.runtime.metrics.collector import MOST_PROJECTS, bounded

KEY = {"execution_id": "r", "step_id": "s", "attempt": 1}


def model_call(provider: str | None, **more: object) -> StepModelCall:
    return StepModelCall(**KEY, model_call=ModelCall(number=1, model="m", provider=provider, **more))  # type: ignore[arg-type]


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
