"""`client.session`: runs that a caller tied together, page by page."""

from typing import Any

from runglass import SessionExecution, SessionStep
from tests.unit.client.scripted import ScriptedServer, answers
from tests.unit.client.sides import Side

SESSION = "0198c0de-0000-7000-8000-00000000000a"


def execution(number: int, **more: Any) -> dict[str, Any]:
    return {
        "executionId": f"r{number}",
        "flowId": "f",
        "slug": "s",
        "triggerType": "execute",
        "status": "completed",
        "traceCaptureMode": "full",
        "snapshotsAvailable": True,
        "steps": [],
        **more,
    }


def page(*executions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"sessionId": SESSION, "executions": list(executions), **more}


def test_the_runs_of_a_session_come_page_by_page(server: ScriptedServer, side: Side) -> None:
    server.plays(
        answers(page(execution(1), execution(2), nextCursor="c2")),
        answers(page(execution(3), nextCursor=None)),
    )
    runs = side.following(side.client(server.url).session(SESSION, limit=2))
    assert [next(runs).execution_id, next(runs).execution_id] == ["r1", "r2"]
    assert len(server.requests) == 1, "the next page is asked for when the loop comes to it"
    assert [run.execution_id for run in runs] == ["r3"]
    path = f"/api/v1/seq/sessions/{SESSION}?limit=2"
    assert [each.target for each in server.requests] == [path, f"{path}&cursor=c2"]


def test_missing_values_are_none(server: ScriptedServer, side: Side) -> None:
    step = {"stepId": "a", "attempt": 1, "status": "completed", "outputSnapshot": {"n": 1}}
    server.plays(answers(page(execution(1, steps=[step], errorAtStep=None))))
    (run,) = side.events(side.client(server.url).session(SESSION))
    assert isinstance(run, SessionExecution)
    assert run.error_at_step is None
    assert run.steps == [SessionStep(step_id="a", attempt=1, status="completed", output_snapshot={"n": 1})]
    assert (run.steps[0].input_snapshot, run.steps[0].loop_index) == (None, None)
    assert "output_snapshot={'n': 1}" in repr(run.steps[0])
