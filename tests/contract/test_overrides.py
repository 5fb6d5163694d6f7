"""The trace has the overrides of its calls: names always, values where content is kept."""

from typing import Any

import httpx2
import pytest

from tests.contract.wire import execute, frames, refusal
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
MODES = {"off": "off", "metadata": "metadata_only", "full": "full"}


server = server_with(*(FLOW.format(mode=mode, slug=slug) for slug, mode in MODES.items()), SETTLED)


@pytest.mark.parametrize("slug", MODES)
def test_the_trace_names_the_overrides_of_a_call(http: httpx2.Client, slug: str) -> None:
    body = {"parameters": {"who": "Ada"}, "blockOverrides": {"ask": {"prompt": "Thank {{ who }}"}}}
    run = execute(http, f"greet-{slug}", **body)
    flow_run = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
    events = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert flow_run["overridden"] == ["ask.prompt"]
    told = next(frame.data for frame in events if frame.event == "overrides_applied")
    assert told.get("blockOverrides") == (body["blockOverrides"] if slug == "full" else None)
    assert (flow_run["flowSlug"], flow_run["version"]) == (f"greet-{slug}", 1)


def _step(http: httpx2.Client, **body: Any) -> Any:
    return frames(http.post("/seq/acme/demo/greet-full/step", json=body).text)


def test_overrides_of_later_calls_join_those_before(http: httpx2.Client) -> None:
    overrides = {"ask": {"system": "Be kind"}}
    first = _step(http, parameters={"who": "Ada"}, blockOverrides=overrides)
    run = first[0].data["executionId"]
    _step(http, executionId=run, stepIndex=1, blockOverrides=overrides, inputOverrides={"text": "another"})
    flow_run = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
    events = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert flow_run["status"] == "completed"
    assert flow_run["overridden"] == ["ask.system", "end.input.text"]
    first, second = [frame.data for frame in events if frame.event == "overrides_applied"]
    assert (first["blockOverrides"], first.get("inputOverrides")) == (overrides, None)
    assert (second.get("blockOverrides"), second["inputOverrides"]) == (None, {"end": {"text": "another"}})


def test_the_trace_names_no_header_and_no_text(http: httpx2.Client) -> None:
    walked = _step(
        http,
        parameters={"who": "Ada"},
        blockOverrides={"ask": {"settings": {"extra_headers": {"X-Key": SECRET}}}},
        inputOverrides={"not a name: born 1970": 1, "text": 2},
        runRemaining=True,
    )
    run = walked[0].data["executionId"]
    flow_run = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
    assert flow_run["overridden"] == ["ask.input.text", "ask.input.…", "ask.settings"]
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
    trace = http.get(f"/flow-runs/{run}/trace").json()
    assert trace["steps"][0]["modelCalls"][0]["request"]["settings"] == sent
    assert named is None or trace["flowRun"]["overridden"] == [f"ask.settings.{named}"]
    assert SECRET not in http.get(f"/flow-runs/{run}/trace/stream").text


def test_an_unknown_setting_is_refused_by_name(http: httpx2.Client) -> None:
    unknown = {"blockOverrides": {"ask": {"settings.temprature": 0}}}
    refused = http.post("/seq/acme/demo/settled/execute", json=unknown)
    assert refusal(refused, "temprature") == (422, "INVALID_REQUEST")
