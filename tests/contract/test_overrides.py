"""What a call sets anew for its run stands in the trace: names always, values where content is kept."""

from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import frames, http_for

FLOW = """
slug: greet-{slug}
capture: {mode}
steps:
  - {{id: ask, type: llm, model: echo, prompt: "Greet {{{{ who }}}}"}}
  - {{id: end, type: passthrough}}
"""


@pytest.mark.parametrize("mode", ["off", "metadata_only", "full"])
def test_overrides_of_a_call_are_told_in_its_trace(server: RunningServer, mode: str) -> None:
    slug = mode.partition("_")[0]
    server.push(FLOW.format(mode=mode, slug=slug))
    body = {"parameters": {"who": "Ada"}, "blockOverrides": {"ask": {"prompt": "Thank {{ who }}"}}}
    with http_for(server, server.key) as http:
        run = http.post(f"/seq/acme/demo/greet-{slug}/execute", json=body).json()["executionId"]
        flow_run = http.get(f"/flow-runs/{run}/trace").json()["flowRun"]
        listed = http.get("/flow-runs?limit=1").json()["runs"][0]
    assert flow_run["overridden"] == ["ask.prompt"]
    assert flow_run.get("blockOverrides") == (body["blockOverrides"] if mode == "full" else None)
    assert (flow_run["flowSlug"], flow_run["version"]) == (f"greet-{slug}", 1)
    assert listed == flow_run


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
        told = [frame.event for frame in frames(http.get(f"/flow-runs/{run}/trace/stream").text)]
    assert flow_run["status"] == "completed"
    assert flow_run["overridden"] == ["ask.system", "end.input.text"]
    assert flow_run["blockOverrides"] == overrides
    assert flow_run["inputOverrides"] == {"end": {"text": "another"}}
    assert told.count("overrides_applied") == 2
