"""What a server answers as a run's trace is what its events add up to, by a fold that it does not share."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from runglass.config.settings import Price
from tests.contract.test_stepping import WALK
from tests.contract.test_tool_calls import TALK, paused, resumed
from tests.contract.wire import FLOWS, ran, refusal, until_event, walked
from tests.laws.law import require
from tests.laws.stored import Told, broken_by_readers
from tests.reference_fold import JsonObject
from tests.servers import server_with

SESSION = "0190b5f0-1c2d-7000-8000-000000000001"
TRACE_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STEPS = {
    "side-by-side": """
  - id: both
    type: parallel
    branches:
      a: [{id: slow, type: wait, ms: 600000}]
      b: [{id: quick, type: passthrough}, {id: bad, type: code, code: 'raise ValueError("x" * 5000)'}]
""",
    "going-on": """
  - {id: each, type: loop, over: '3', on_error: continue, steps: [{id: never, type: passthrough}]}
  - {id: none, type: loop, over: '[]', steps: [{id: nothing, type: passthrough}]}
  - id: bad
    type: code
    code: raise ValueError("no")
    on_error: continue
    retry: {max_attempts: 3, initial_delay_ms: 0}
""",
    "skips": """
  - id: outer
    type: loop
    over: list(range(12))
    max_concurrency: 2
    steps:
      - id: choose
        type: condition
        if: index == 1
        then: [{id: inner, type: loop, over: list(range(11)), steps: [{id: deep, type: passthrough}]}]
        else: [{id: flat, type: passthrough}]
      # It begins later in the second iteration than in those after it.
      - {id: last, type: passthrough}
""",
    "large": """
  - {id: many, type: code, code: 'return {"words": ["x" * 100 for _ in range(9000)]}'}
  - {id: after, type: passthrough}
""",
}
ASKS = """
  - {id: ask, type: llm, model: echo, prompt: "password: hunter22secret"}
  - {id: bad, type: code, code: 'raise ValueError("no")'}
"""

CONTENT = {
    *("inputContext", "outputContext", "inputs", "inputData", "outputData", "output", "result"),
    *("request", "response", "toolCallMessages", "accumulatedOutputs", "blockOverrides", "inputOverrides"),
}
"""Members that hold what callers, flows and models say, in which a null is theirs."""


MODES = ("off", "metadata_only", "redacted")


server = server_with(
    *(*FLOWS, TALK, WALK),
    *(f"slug: {slug}\nsteps:{steps}" for slug, steps in STEPS.items()),
    *(f"slug: asks-{mode.replace('_', '-')}\ncapture: '{mode}'\nsteps:{ASKS}" for mode in MODES),
    capture="full",
    prices={"echo": Price(input_per_mtok=Decimal("0.30"), output_per_mtok=Decimal(1000))},
)


def nulls(value: Any, place: str = "") -> Iterator[str]:
    """Where in a document there is a null that is not inside of somebody's content; a result may be one."""
    if value is None:
        yield place
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from nulls(item, f"{place}[{index}]")
    elif isinstance(value, dict):
        for name, member in value.items():
            if name not in CONTENT or (member is None and name != "result"):
                yield from nulls(member, f"{place}.{name}")


def events_so_far(http: httpx2.Client, run: str) -> list[JsonObject]:
    """The events in the live trace, up to that which its outline is of."""
    last = http.get(f"/flow-runs/{run}/trace/outline").json()["seq"]
    events: list[JsonObject] = []
    with http.stream("GET", f"/flow-runs/{run}/trace/stream") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        while not events or events[-1]["seq"] < last:
            events.append(json.loads(next(lines).removeprefix("data: ")))
    return events


def check_content(http: httpx2.Client, run: str, step: JsonObject, mode: str) -> None:
    """Content by itself is what the trace has of it and no more, and a refusal names the capture mode."""
    path = ",".join(map(str, step.get("loopPath", [])))
    for part in ("input", "output", "error"):
        query = {"part": part, "attempt": step["attempt"], **({"loop_index": path} if path else {})}
        answer = http.get(f"/flow-runs/{run}/steps/{step['stepId']}/payload", params=query)
        if (told := step.get(f"{part}Context")) is None:
            assert refusal(answer, mode) == (404, "CONTENT_NOT_KEPT")
        else:
            assert answer.json() == told


def check(http: httpx2.Client, run: str, *, mode: str = "") -> str:
    """Compares all that can be read of a run that writes nothing more; its status comes back."""
    events = events_so_far(http, run)
    trace = http.get(f"/flow-runs/{run}/trace").json()
    attempts = {
        step: http.get(f"/flow-runs/{run}/steps/{step}/trace", params={"attempt": "all"}).json()
        for step in {step["stepId"] for step in trace["steps"]}
    }
    (listed, *_) = http.get("/flow-runs").json()["runs"]
    # The fold of the specification has none either.
    assert list(nulls(events)) == [], "missing values are left out: some clients break on null"
    require(broken_by_readers(Told(run, events, trace, listed=listed, attempts=attempts)))
    for step in trace["steps"]:
        if step["status"] != "skipped":
            check_content(http, run, step, mode)
    return str(trace["flowRun"]["status"])


@pytest.mark.parametrize(
    ("slug", "body", "status"),
    [
        ("words", {"message": "some more words"}, "completed"),
        ("words", {"message": "one"}, "completed"),
        ("grid", {"parameters": {"rows": [[1, 11], [], [2]]}}, "completed"),
        ("anything", {"parameters": {"nothing": None, "é": [1.5, True]}}, "completed"),
        ("brisk", {}, "completed"),
        ("going-on", {}, "completed"),
        ("skips", {}, "completed"),
        ("large", {}, "completed"),
        ("broken", {"blockOverrides": {"bad": {"code": "return {}"}}}, "completed"),
        ("broken", {}, "failed"),
        ("side-by-side", {}, "failed"),
        ("asks-off", {}, "failed"),
        ("asks-metadata-only", {}, "failed"),
        ("asks-metadata-only", {"trace": True}, "failed"),
        ("asks-redacted", {}, "failed"),
    ],
)
def test_a_run_that_has_ended(http: httpx2.Client, slug: str, body: JsonObject, status: str) -> None:
    headers = {"X-Session-Id": SESSION, "traceparent": TRACE_PARENT}
    _, is_asked, asked = slug.partition("asks-")
    mode = f"'{asked.replace('-', '_')}'" if is_asked and not body else ""
    assert check(http, ran(http, slug, headers=headers, **body), mode=mode) == status


def test_a_run_that_goes_on_and_is_cancelled(http: httpx2.Client) -> None:
    """What the wait has been given is the last that is told of it."""
    run = http.post("/seq/acme/demo/endless/jobs", json={}).json()["executionId"]
    until_event(http, run, "step_input", nth=2)
    assert check(http, run) == "running"
    assert http.delete(f"/flow-runs/{run}").status_code == 202
    assert check(http, run) == "cancelled"


def test_a_step_through_with_changes_and_a_way_back(http: httpx2.Client) -> None:
    path = "/seq/acme/demo/walk/step"
    run = walked(http, path, parameters={"n": 1})[0].data["executionId"]
    assert check(http, run) == "paused"
    walked(http, path, executionId=run, stepIndex=1, inputOverrides={"more": 1, "z": {"other": 2}})
    assert check(http, run) == "paused"
    walked(http, path, executionId=run, stepIndex=0, blockOverrides={"a": {"input": {"n": 4}}})
    assert check(http, run) == "paused"
    walked(http, path, executionId=run, stepIndex=1, runRemaining=True)
    assert check(http, run) == "completed"


def test_tools_whose_results_come_in(http: httpx2.Client) -> None:
    waiting = paused(http)
    run = waiting["executionId"]
    assert check(http, run) == "paused"
    resumed(http, waiting)
    assert check(http, run) == "completed"


def test_tools_whose_results_never_come(http: httpx2.Client) -> None:
    run = paused(http)["executionId"]
    http.delete(f"/flow-runs/{run}")
    assert check(http, run) == "cancelled"
