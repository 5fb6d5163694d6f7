"""A run's inputs as its flow declares them: defaults filled in, then checked."""

from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import refusal

FLOW = """
slug: letter
inputs:
  type: object
  additionalProperties: false
  properties:
    message: {type: string, default: Dear reader}
    tone: {$ref: "#/$defs/tone"}
    page: {type: object, properties: {size: {type: string, default: A4}, lines: {type: integer}}}
    copies: {type: integer, default: 1, minimum: 1}
  required: [message, tone]
  $defs: {tone: {enum: [warm, cool], default: warm}}
steps:
  - {id: write, type: llm, model: echo}
  - {id: all, type: passthrough, input: {all: "{{ initial }}"}}
"""
UNFIT = """
slug: unfit
inputs: {type: object, properties: {copies: {type: integer, default: many}}}
steps: [{id: keep, type: passthrough}]
"""


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for flow in (FLOW, UNFIT):
        server.push(flow)


def inputs_of(http: httpx2.Client, body: dict[str, Any], path: str = "execute") -> Any:
    answer = http.post(f"/seq/acme/demo/letter/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]["all"]


def test_defaults_are_the_inputs_of_a_run_that_gives_none(http: httpx2.Client) -> None:
    answer = http.post("/seq/acme/demo/letter/execute", json={})
    filled = {"message": "Dear reader", "tone": "warm", "copies": 1}
    assert answer.json()["result"] == {"all": filled}
    trace = http.get(f"/flow-runs/{answer.json()['executionId']}/trace").json()
    first = next(step for step in trace["steps"] if step["stepId"] == "write")
    assert first["inputContext"].items() >= filled.items()
    assert first["outputContext"] == {"text": "Dear reader"}


def test_given_inputs_stand_and_nested_objects_get_their_defaults(http: httpx2.Client) -> None:
    given = {"message": "Hi", "parameters": {"tone": "cool", "page": {"lines": 3}}}
    assert inputs_of(http, given) == {
        "message": "Hi",
        "tone": "cool",
        "copies": 1,
        "page": {"lines": 3, "size": "A4"},
    }


def test_inputs_are_checked_with_their_defaults(http: httpx2.Client) -> None:
    answer = http.post("/seq/acme/demo/letter/execute", json={"parameters": {"copies": 0}})
    assert refusal(answer) == (422, "INVALID_REQUEST")
    unfit = http.post("/seq/acme/demo/unfit/execute", json={})
    assert refusal(unfit, "parameters.copies") == (422, "INVALID_REQUEST")


def test_a_step_through_begins_with_the_defaults(http: httpx2.Client) -> None:
    answer = http.post("/seq/acme/demo/letter/v1/step", json={"stepIndex": 0})
    assert answer.status_code == 200
    assert "Dear reader" in answer.text
