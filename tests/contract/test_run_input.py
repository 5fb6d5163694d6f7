"""A run's own input and result: what of them its trace, its log and lists have, by capture mode."""

from typing import Any

import httpx2
import msgspec
import pytest

from runglass.testing import RunningServer, running_server
from tests.contract.wire import ENDLESS, frames, http_for, ran

FLOW = """
slug: {slug}
capture: {mode}
overridable: [prompt]
inputs:
  type: object
  properties:
    message: {{type: string}}
    tone: {{type: object, properties: {{of: {{default: kind}}}}}}
    times: {{type: integer, default: 3}}
steps:
  - {{id: ask, type: llm, model: echo, prompt: "{greets} {{{{ message }}}}"}}
  - id: end
    type: code
    code: |
      if initial["message"] == "fail":
          raise ValueError("it broke")
      return {{"text": text, "times": initial["times"]}}
"""
MODES = ["off", "metadata_only", "redacted", "full"]


@pytest.fixture(scope="module", autouse=True)
def flows(server: RunningServer) -> None:
    for mode in MODES:
        push(server, mode)


def push(server: RunningServer, mode: str, greets: str = "Greet") -> None:
    server.push(FLOW.format(slug=slug(mode), mode=mode, greets=greets))


def slug(mode: str) -> str:
    return f"told-{mode.partition('_')[0]}"


def run_of(http: httpx2.Client, mode: str, **body: Any) -> str:
    return ran(http, slug(mode), **body)


def read(http: httpx2.Client, run: str) -> tuple[dict[str, Any], list[Any]]:
    """The run's `flowRun` and its events; that one follows from the other is in `test_reference_trace.py`."""
    flow_run: dict[str, Any] = http.get(f"/flow-runs/{run}").json()
    assert http.get(f"/flow-runs/{run}/trace").json()["flowRun"] == flow_run
    return flow_run, [frame.data for frame in frames(http.get(f"/flow-runs/{run}/trace/stream").text)]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_ended_well_has_them_where_content_is_kept(http: httpx2.Client, mode: str) -> None:
    given = {"message": "hello", "tone": {"for": "ada@example.com"}}
    flow_run, events = read(http, run_of(http, mode, message="hello", parameters={"tone": given["tone"]}))
    types = [event["eventType"] for event in events]
    if mode in ("off", "metadata_only"):
        assert not {"input", "inputPreview", "result", "resultPreview"} & set(flow_run)
        assert "run_input" not in types
        return
    shown = "ada@example.com" if mode == "full" else "[redacted]"
    assert flow_run["input"] == {"inputs": {"tone": {"for": shown}, "message": "hello"}}, "without defaults"
    assert flow_run["result"] == {"text": "Greet hello", "times": 3}
    assert flow_run["inputPreview"] == f'{{"tone":{{"for":"{shown}"}},"message":"hello"}}'
    assert flow_run["resultPreview"] == '{"text":"Greet hello","times":3}'
    assert types.index("run_input") == 1
    assert events[1]["inputs"] == flow_run["input"]["inputs"]
    assert events[1]["inputSizeBytes"] == len(msgspec.json.encode({"inputs": given}))
    assert events[1]["truncated"] is False


@pytest.mark.parametrize(
    ("mode", "number"), [("off", None), ("metadata_only", -2), ("redacted", 1), ("full", 1)]
)
def test_a_run_that_failed_has_its_input(http: httpx2.Client, mode: str, number: int | None) -> None:
    """Like a failed attempt: where nothing else keeps content, just before the end."""
    flow_run, events = read(http, run_of(http, mode, message="fail"))
    assert flow_run["status"] == "failed"
    at = [place for place, event in enumerate(events) if event["eventType"] == "run_input"]
    if number is None:
        assert (at, flow_run.get("input"), flow_run.get("inputPreview")) == ([], None, None)
    else:
        assert at == [number % len(events)]
        assert (flow_run["input"], flow_run["inputPreview"]) == ({"inputs": {"message": "fail"}}, "fail")


def test_a_conversation_and_its_images_are_told_beside_the_inputs(http: httpx2.Client) -> None:
    image = {"url": "https://example.com/a.png", "mimeType": "image/png"}
    messages = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "well"}]
    run = run_of(http, "full", messages=[*messages, {"role": "user", "content": "now"}], attachments=[image])
    flow_run, _ = read(http, run)
    given = flow_run["input"]
    assert given["inputs"] == {"message": "now"}
    assert given["messages"] == messages
    assert [each["url"] for each in given["attachments"]] == [image["url"]]
    assert flow_run["inputPreview"] == "now"


def test_previews_are_200_characters_on_one_line(http: httpx2.Client) -> None:
    flow_run, _ = read(http, run_of(http, "full", message="two\n lines " + "é" * 300))
    assert flow_run["inputPreview"] == "two lines " + "é" * 189 + "…"
    assert len(flow_run["resultPreview"]) == 200


def test_a_step_through_has_the_input_of_its_first_call(http: httpx2.Client) -> None:
    path = f"/seq/acme/demo/{slug('metadata_only')}/step"
    run = str(frames(http.post(path, json={"message": "fail"}).text)[0].data["executionId"])
    http.post(path, json={"executionId": run, "stepIndex": 1, "message": "another"})
    flow_run, events = read(http, run)
    assert flow_run["status"] == "failed"
    assert flow_run["input"] == {"inputs": {"message": "fail"}}
    assert [event["eventType"] for event in events[-2:]] == ["run_input", "flow_failed"]


def test_a_run_that_never_began_has_its_input() -> None:
    """It waited for a place when it was cancelled."""
    settings = {"capture": "full", "max_concurrent_runs": 1}
    with running_server(**settings) as server, http_for(server, server.key) as http:
        server.push(ENDLESS)
        path = "/seq/acme/demo/endless/jobs"
        first, second = (
            http.post(path, json={"message": each}).json()["executionId"] for each in ("one", "two")
        )
        assert http.delete(f"/flow-runs/{second}").status_code == 202
        flow_run, events = read(http, second)
        assert flow_run["inputPreview"] == "two"
        assert [event["eventType"] for event in events] == ["run_started", "run_input", "flow_cancelled"]
        http.delete(f"/flow-runs/{first}")
