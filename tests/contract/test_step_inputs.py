"""`inputOverrides` of a step-through: fields of the first step's input, or of the step that they name."""

from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.test_stepping import call, types

PATH = "/seq/acme/demo/steer/step"
STEER = """
slug: steer
inputs: {type: object, properties: {n: {type: integer}}}
steps:
  - {id: a, type: passthrough}
  - id: each
    type: loop
    over: over
    input: {over: ["x", "y"]}
    steps:
      - {id: inner, type: passthrough, input: {item: "{{ item }}", by: template}}
  - {id: z, type: passthrough, input: {said: template, kept: template}}
"""


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    server.push(STEER)


def outputs(http: httpx2.Client, **body: Any) -> dict[str, list[Any]]:
    """What each step gave in one call, by step id."""
    found: dict[str, list[Any]] = {}
    for frame in call(http, PATH, **body):
        if frame.event == "step_completed":
            found.setdefault(frame.data["stepId"], []).append(frame.data["output"])
    return found


def begin(http: httpx2.Client, **body: Any) -> str:
    return str(call(http, PATH, **body)[0].data["executionId"])


def test_input_overrides_of_a_named_step_hold_whenever_it_runs(http: httpx2.Client) -> None:
    """Over what its own template says, in each iteration, in whichever call it runs; the rest stays."""
    given = {"z": {"said": "by me"}, "inner": {"by": "me"}}
    body = {"parameters": {"n": 1}, "inputOverrides": given}
    run = begin(http, **body)
    assert outputs(http, executionId=run, stepIndex=1, inputOverrides=given) == {
        "inner": [{"item": "x", "by": "me"}, {"item": "y", "by": "me"}]
    }
    assert outputs(http, executionId=run, stepIndex=2, inputOverrides=given) == {
        "z": [{"said": "by me", "kept": "template"}]
    }
    whole = outputs(http, **body, runRemaining=True)
    assert whole["a"] == [{"n": 1}]
    assert whole["inner"][1] == {"item": "y", "by": "me"}
    assert whole["z"] == [{"said": "by me", "kept": "template"}]


def test_input_overrides_of_a_named_container_hold(http: httpx2.Client) -> None:
    found = outputs(http, runRemaining=True, inputOverrides={"each": {"over": [1]}})
    assert found["inner"] == [{"item": 1, "by": "template"}]


def test_other_input_overrides_are_for_the_first_step_of_the_segment(http: httpx2.Client) -> None:
    """So does the id of a step beside which no object stands."""
    given = {"n": 2, "z": "no object", "other": {"deep": 1}}
    assert outputs(http, parameters={"n": 1}, inputOverrides=given) == {"a": [given]}
    both = {"n": 2, "a": {"n": 3}}
    assert outputs(http, parameters={"n": 1}, inputOverrides=both) == {"a": [{"n": 3}]}


def test_a_call_without_input_overrides_keeps_the_earlier_ones(http: httpx2.Client) -> None:
    run = begin(http, inputOverrides={"n": 5, "z": {"said": "before"}})
    call(http, PATH, executionId=run, stepIndex=1)
    assert outputs(http, executionId=run, stepIndex=2, inputOverrides=None) == {
        "z": [{"said": "before", "kept": "template"}]
    }
    run = begin(http, inputOverrides={"z": {"said": "before"}})
    call(http, PATH, executionId=run, stepIndex=1, inputOverrides={"z": {"kept": "later"}})
    assert outputs(http, executionId=run, stepIndex=2) == {"z": [{"said": "template", "kept": "later"}]}
    run = begin(http, inputOverrides={"z": {"said": "before"}})
    assert outputs(http, executionId=run, stepIndex=1, inputOverrides={}, runRemaining=True)["z"] == [
        {"said": "template", "kept": "template"}
    ]


def test_the_trace_names_the_overridden_inputs(http: httpx2.Client) -> None:
    given = {"n": 2, "z": {"said": "by me"}}
    found = call(http, PATH, inputOverrides=given)
    run = found[0].data["executionId"]
    told = next(frame.data for frame in found if frame.event == "overrides_applied")
    assert sorted(told["overridden"]) == ["a.input.n", "z.input.said"]
    assert told["inputOverrides"] == {"a": {"n": 2}, "z": {"said": "by me"}}
    again = call(http, PATH, executionId=run, stepIndex=1, inputOverrides={"z": {"said": "by me"}})
    assert "overrides_applied" not in types(again), "nothing new was said"
