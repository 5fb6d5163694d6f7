"""What overrides do, and what the trace has of them: names always, values where content is kept."""

from typing import Any

import httpx2
import pytest

from tests.contract.wire import events_of, execute, trace_of, walked
from tests.servers import server_with

SECRET = "hunter2hunter2"

FLOW = """
slug: greet-{slug}
capture: {mode}
steps:
  - {{id: ask, type: llm, model: echo, prompt: "Greet {{{{ who }}}}"}}
  - {{id: end, type: passthrough}}
"""
SETTLED = """
slug: settled
capture: full
steps:
  - {id: ask, type: llm, model: echo, prompt: x, settings: {temperature: 1, max_tokens: 9, seed: 5}}
"""
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
  - {id: z, name: Last, type: passthrough, input: {said: template, kept: template}}
"""
MODES = {"off": "off", "metadata": "metadata_only", "full": "full"}
GREET, STEP_BY_STEP = "/seq/acme/demo/greet-full/step", "/seq/acme/demo/steer/step"


server = server_with(*(FLOW.format(mode=mode, slug=slug) for slug, mode in MODES.items()), SETTLED, STEER)


@pytest.mark.parametrize("slug", MODES)
def test_the_trace_names_the_overrides_of_a_call(http: httpx2.Client, slug: str) -> None:
    body = {"parameters": {"who": "Ada"}, "blockOverrides": {"ask": {"prompt": "Thank {{ who }}"}}}
    run = execute(http, f"greet-{slug}", **body)
    flow_run = trace_of(http, run)["flowRun"]
    assert flow_run["overridden"] == ["ask.prompt"]
    told = next(frame.data for frame in events_of(http, run) if frame.event == "overrides_applied")
    assert told.get("blockOverrides") == (body["blockOverrides"] if slug == "full" else None)
    assert (flow_run["flowSlug"], flow_run["version"]) == (f"greet-{slug}", 1)


def test_overrides_of_later_calls_join_those_before(http: httpx2.Client) -> None:
    overrides = {"ask": {"system": "Be kind"}}
    run = walked(http, GREET, parameters={"who": "Ada"}, blockOverrides=overrides)[0].data["executionId"]
    given = {"text": "another"}
    walked(http, GREET, executionId=run, stepIndex=1, blockOverrides=overrides, inputOverrides=given)
    flow_run = trace_of(http, run)["flowRun"]
    assert flow_run["status"] == "completed"
    assert flow_run["overridden"] == ["ask.system", "end.input.text"]
    first, second = [each.data for each in events_of(http, run) if each.event == "overrides_applied"]
    assert (first["blockOverrides"], first.get("inputOverrides")) == (overrides, None)
    assert (second.get("blockOverrides"), second["inputOverrides"]) == (None, {"end": given})


def test_the_trace_names_no_header_and_no_text(http: httpx2.Client) -> None:
    run = walked(
        http,
        GREET,
        parameters={"who": "Ada"},
        blockOverrides={"ask": {"settings": {"extra_headers": {"X-Key": SECRET}}}},
        inputOverrides={"not a name: born 1970": 1, "text": 2},
        runRemaining=True,
    )[0].data["executionId"]
    overridden = ["ask.input.text", "ask.input.…", "ask.settings"]
    assert trace_of(http, run)["flowRun"]["overridden"] == overridden
    assert SECRET not in http.get(f"/flow-runs/{run}/trace/stream").text


@pytest.mark.parametrize(
    ("override", "sent", "named"),
    [
        ({"settings.temperature": 0}, {"temperature": 0, "max_tokens": 9, "seed": 5}, "temperature"),
        ({"settings.seed": None}, {"temperature": 1, "max_tokens": 9}, "seed"),
        (
            {"settings.extra_headers": {"X-Key": SECRET}},
            {"temperature": 1, "max_tokens": 9, "seed": 5, "extra_headers": {"X-Key": "[redacted]"}},
            "extra_headers",
        ),
        ({"settings": {"top_p": 1}, "settings.seed": 7}, {"top_p": 1, "seed": 7}, None),
    ],
)
def test_one_setting_is_set_and_the_others_stay(
    http: httpx2.Client, override: dict[str, Any], sent: dict[str, Any], named: str | None
) -> None:
    run = execute(http, "settled", blockOverrides={"ask": override})
    trace = trace_of(http, run)
    assert trace["steps"][0]["modelCalls"][0]["request"]["settings"] == sent
    assert named is None or trace["flowRun"]["overridden"] == [f"ask.settings.{named}"]
    assert SECRET not in http.get(f"/flow-runs/{run}/trace/stream").text


def outputs(http: httpx2.Client, **body: Any) -> dict[str, list[Any]]:
    """What each step of `steer` gave in one call, by step id."""
    found: dict[str, list[Any]] = {}
    for frame in walked(http, STEP_BY_STEP, **body):
        if frame.event == "step_completed":
            found.setdefault(frame.data["stepId"], []).append(frame.data["output"])
    return found


def begin(http: httpx2.Client, **body: Any) -> str:
    return str(walked(http, STEP_BY_STEP, **body)[0].data["executionId"])


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


def test_other_input_overrides_are_for_the_first_step_of_the_segment(http: httpx2.Client) -> None:
    """So does the id of a step beside which no object stands."""
    given = {"n": 2, "z": "no object", "other": {"deep": 1}}
    assert outputs(http, parameters={"n": 1}, inputOverrides=given) == {"a": [given]}
    both = {"n": 2, "a": {"n": 3}}
    assert outputs(http, parameters={"n": 1}, inputOverrides=both) == {"a": [{"n": 3}]}


def test_a_call_without_input_overrides_keeps_the_earlier_ones(http: httpx2.Client) -> None:
    run = begin(http, inputOverrides={"n": 5, "z": {"said": "before"}})
    outputs(http, executionId=run, stepIndex=1)
    assert outputs(http, executionId=run, stepIndex=2, inputOverrides=None) == {
        "z": [{"said": "before", "kept": "template"}]
    }
    run = begin(http, inputOverrides={"z": {"said": "before"}})
    outputs(http, executionId=run, stepIndex=1, inputOverrides={"z": {"kept": "later"}})
    assert outputs(http, executionId=run, stepIndex=2) == {"z": [{"said": "template", "kept": "later"}]}
    run = begin(http, inputOverrides={"z": {"said": "before"}})
    assert outputs(http, executionId=run, stepIndex=1, inputOverrides={}, runRemaining=True)["z"] == [
        {"said": "template", "kept": "template"}
    ]
