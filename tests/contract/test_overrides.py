"""The trace has the overrides of its calls: names always, values where content is kept."""

from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import as_listed, frames, http_for

FLOW = """
slug: greet-{slug}
capture: {mode}
steps:
  - {{id: ask, type: llm, model: echo, prompt: "Greet {{{{ who }}}}"}}
  - {{id: end, type: passthrough}}
"""


@pytest.mark.parametrize("mode", ["off", "metadata_only", "full"])
def test_the_trace_names_the_overrides_of_a_call(server: RunningServer, mode: str) -> None:
    slug = mode.partition("_")[0]
    server.push(FLOW.format(mode=mode, slug=slug))
    body = {"parameters": {"who": "Ada"}, "blockOverrides": {"ask": {"prompt": "Thank {{ who }}"}}}
    with http_for(server, server.key) as http:
        run = http.post(f"/seq/acme/demo/greet-{slug}/execute", json=body).json()["executionId"]
        flow_run = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
        listed = http.get("/flow-runs?limit=1").json()["runs"][0]
        events = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert flow_run["overridden"] == ["ask.prompt"]
    told = next(frame.data for frame in events if frame.event == "overrides_applied")
    assert told.get("blockOverrides") == (body["blockOverrides"] if mode == "full" else None)
    assert (flow_run["flowSlug"], flow_run["version"]) == (f"greet-{slug}", 1)
    assert listed == as_listed(flow_run)


def _step(http: httpx2.Client, **body: Any) -> Any:
    return frames(http.post("/seq/acme/demo/greet-full/step", json=body).text)


def test_overrides_of_later_calls_join_those_before(server: RunningServer) -> None:
    server.push(FLOW.format(mode="full", slug="full"))
    with http_for(server, server.key) as http:
        overrides = {"ask": {"system": "Be kind"}}
        first = _step(http, parameters={"who": "Ada"}, blockOverrides=overrides)
        run = first[0].data["executionId"]
        _step(
            http, executionId=run, stepIndex=1, blockOverrides=overrides, inputOverrides={"text": "another"}
        )
        flow_run = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
        events = frames(http.get(f"/flow-runs/{run}/trace/stream").text)
    assert flow_run["status"] == "completed"
    assert flow_run["overridden"] == ["ask.system", "end.input.text"]
    first, second = [frame.data for frame in events if frame.event == "overrides_applied"]
    assert (first["blockOverrides"], first.get("inputOverrides")) == (overrides, None)
    assert (second.get("blockOverrides"), second["inputOverrides"]) == (None, {"end": {"text": "another"}})


def test_the_trace_names_no_header_and_no_text(server: RunningServer) -> None:
    server.push(FLOW.format(mode="full", slug="full"))
    said = "not a name: born 1970"
    overrides = {"ask": {"settings": {"extra_headers": {"X-Key": "hunter2hunter2"}}}}
    with http_for(server, server.key) as http:
        inputs = {said: 1, "text": 2}
        walked = _step(
            http,
            parameters={"who": "Ada"},
            blockOverrides=overrides,
            inputOverrides=inputs,
            runRemaining=True,
        )
        run = walked[0].data["executionId"]
        flow_run = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
        log = http.get(f"/flow-runs/{run}/trace/stream").text
    assert flow_run["overridden"] == ["ask.input.text", "ask.input.…", "ask.settings"]
    assert "hunter2hunter2" not in log


def test_one_setting_is_set_and_the_others_stay(server: RunningServer) -> None:
    server.push(
        "slug: settled\ncapture: full\nsteps:\n"
        "  - {id: ask, type: llm, model: echo, prompt: x, settings: {temperature: 1, max_tokens: 9, seed: 5}}"
    )
    header = {"X-Key": "hunter2hunter2"}
    cases: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
        ({"settings.temperature": 0}, {"temperature": 0, "max_tokens": 9, "seed": 5}, ["temperature"]),
        ({"settings.seed": None}, {"temperature": 1, "max_tokens": 9}, ["seed"]),
        (
            {"settings.extra_headers": header},
            {"temperature": 1, "max_tokens": 9, "seed": 5, "extra_headers": {"X-Key": "[redacted]"}},
            ["extra_headers"],
        ),
    ]
    with http_for(server, server.key) as http:
        for override, sent, named in cases:
            body = {"blockOverrides": {"ask": override}}
            run = http.post("/seq/acme/demo/settled/execute", json=body).json()["executionId"]
            trace = http.get(f"/flow-runs/{run}/trace").json()
            assert trace["steps"][0]["modelCalls"][0]["request"]["settings"] == sent
            assert trace["flowRun"]["overridden"] == [f"ask.settings.{name}" for name in named]
            assert "hunter2hunter2" not in http.get(f"/flow-runs/{run}/trace/stream").text
        unknown = {"blockOverrides": {"ask": {"settings.temprature": 0}}}
        refused = http.post("/seq/acme/demo/settled/execute", json=unknown)
        assert (refused.status_code, "temprature" in refused.json()["detail"]["message"]) == (422, True)
        both = {"blockOverrides": {"ask": {"settings": {"top_p": 1}, "settings.seed": 7}}}
        run = http.post("/seq/acme/demo/settled/execute", json=both).json()["executionId"]
        call = http.get(f"/flow-runs/{run}/trace").json()["steps"][0]["modelCalls"][0]
        assert call["request"]["settings"] == {"top_p": 1, "seed": 7}
