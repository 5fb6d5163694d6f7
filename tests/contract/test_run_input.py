"""What a run keeps of its call, by capture mode: input, result, its caller's trace; new runs of its input."""

import re
from typing import Any

import httpx2
import msgspec
import pytest

from runglass import Client
from runglass.testing import RunningServer
from tests.contract.wire import as_listed, events_of, ran, refusal, trace_of, walked

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


@pytest.fixture(autouse=True)
def flows(server: RunningServer) -> None:
    """As every test finds them, whichever version another one has published."""
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
    assert trace_of(http, run)["flowRun"] == flow_run
    return flow_run, [frame.data for frame in events_of(http, run)]


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
    run = run_of(http, mode, message="fail")
    flow_run, events = read(http, run)
    assert flow_run["status"] == "failed"
    good, bad = trace_of(http, run)["steps"]
    keeps_all, keeps_failed = mode in ("redacted", "full"), mode != "off"
    assert ("inputContext" in good, "outputContext" in good) == (keeps_all, keeps_all)
    assert ("inputContext" in bad, "message" in bad["errorContext"]) == (keeps_failed, keeps_failed)
    at = [place for place, event in enumerate(events) if event["eventType"] == "run_input"]
    if number is None:
        assert (at, flow_run.get("input"), flow_run.get("inputPreview")) == ([], None, None)
    else:
        assert at == [number % len(events)]
        assert (flow_run["input"], flow_run["inputPreview"]) == ({"inputs": {"message": "fail"}}, "fail")


IMAGE = {"url": "https://example.com/a.png", "mimeType": "image/png"}
TURNS = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "well"}]
CONVERSATION = {"messages": [*TURNS, {"role": "user", "content": "now"}], "attachments": [IMAGE]}


def test_previews_are_200_characters_on_one_line(http: httpx2.Client) -> None:
    flow_run, _ = read(http, run_of(http, "full", message="two\n lines " + "é" * 300))
    assert flow_run["inputPreview"] == "two lines " + "é" * 189 + "…"
    assert len(flow_run["resultPreview"]) == 200


def test_a_step_through_has_the_input_of_its_first_call(http: httpx2.Client) -> None:
    path = f"/seq/acme/demo/{slug('metadata_only')}/step"
    run = walked(http, path, message="fail")[0].data["executionId"]
    http.post(path, json={"executionId": run, "stepIndex": 1, "message": "another"})
    flow_run, events = read(http, run)
    assert flow_run["status"] == "failed"
    assert flow_run["input"] == {"inputs": {"message": "fail"}}
    assert [event["eventType"] for event in events[-2:]] == ["run_input", "flow_failed"]


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"


@pytest.mark.parametrize("call", ["execute", "jobs", "step"])
@pytest.mark.parametrize(
    ("parent", "state", "kept"), [(PARENT, STATE, STATE), (PARENT, None, None), (None, STATE, None)]
)
def test_the_runs_trace_names_the_callers_trace(
    http: httpx2.Client, call: str, parent: str | None, state: str | None, kept: str | None
) -> None:
    headers = {"traceparent": parent, "tracestate": state}
    sent = {name: value for name, value in headers.items() if value is not None}
    answer = http.post(f"/seq/acme/demo/anything/{call}", json={}, headers=sent)
    (run, *_) = re.findall('"executionId":"([^"]+)"', answer.text)
    events_of(http, run)
    flow_run, (started, *_) = read(http, run)
    for told in (flow_run, started):
        assert (told.get("traceParent"), told.get("traceState")) == (parent, kept)


def test_our_client_says_which_trace_a_run_is_part_of(server: RunningServer) -> None:
    carrier = {"traceparent": PARENT, "tracestate": STATE, "baggage": "a=b"}
    with Client(server.key, base_url=server.base_url, org="acme", project="demo") as client:
        flow = client.flow("anything")
        job = flow.execute_async(trace_context=carrier)
        job.wait(poll_interval=0.01)
        stepped = [step.execution_id for step in flow.steps(trace_context=carrier)]
        for run in (flow.execute(trace_context=carrier).execution_id, job.execution_id, stepped[0]):
            summary = client.run(run).trace().flow_run
            assert (summary.trace_parent, summary.trace_state) == (PARENT, STATE)
        without = flow.execute(trace_context={}).execution_id
        assert client.run(without).trace().flow_run.trace_parent is None


def again(http: httpx2.Client, run: str, **body: Any) -> dict[str, Any]:
    """The `flowRun` of the new run, once it has ended."""
    answer = http.post(f"/flow-runs/{run}/rerun", json=body)
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    assert sorted(accepted) == ["blockCount", "executionId", "flowId", "rerunOf", "status"]
    assert (accepted["status"], accepted["blockCount"], accepted["rerunOf"]) == ("pending", 2, run)
    return ended(http, accepted["executionId"])


def ended(http: httpx2.Client, run: str) -> dict[str, Any]:
    stream, flow_run = events_of(http, run), trace_of(http, run)["flowRun"]
    assert stream[0].data.get("rerunOf") == flow_run.get("rerunOf")
    found: dict[str, Any] = flow_run
    return found


def test_a_new_run_has_the_same_conversation_and_says_of_which_it_is(http: httpx2.Client) -> None:
    run = run_of(http, "full", **CONVERSATION, parameters={"more": [1]})
    before, after = ended(http, run), again(http, run)
    given = before["input"]
    assert (given["inputs"], given["messages"]) == ({"message": "now", "more": [1]}, TURNS)
    assert [each["url"] for each in given["attachments"]] == [IMAGE["url"]]
    assert after["id"] != run
    assert (after["rerunOf"], after["triggerType"], after["status"]) == (run, "replay", "completed")
    assert "rerunOf" not in before
    for same in ("flowId", "version", "input", "inputPreview", "result"):
        assert after[same] == before[same], same
    (listed,) = [each for each in http.get("/flow-runs").json()["runs"] if each["id"] == after["id"]]
    assert listed == as_listed(after)


def test_a_run_that_failed_can_be_run_again_under_metadata_only(http: httpx2.Client) -> None:
    run = run_of(http, "metadata_only", message="fail")
    after = again(http, run)
    assert (after["status"], after["input"]) == ("failed", {"inputs": {"message": "fail"}})
    by_slug = http.post(f"/seq/acme/demo/{slug('metadata_only')}/runs/{run}/rerun")
    assert by_slug.status_code == 202, "without a body, and below the flow"
    assert ended(http, by_slug.json()["executionId"])["rerunOf"] == run


def test_the_version_is_the_same_unless_another_one_is_named(
    server: RunningServer, http: httpx2.Client
) -> None:
    run = run_of(http, "full", message="Ada")
    first = ended(http, run)["version"]
    push(server, "full", "Thank")
    found = {
        version: again(http, run, version=version) for version in ("same", "production", first, first + 1)
    }
    told = {version: (each["version"], each["result"]["text"]) for version, each in found.items()}
    assert told == {
        "same": (first, "Greet Ada"),
        "production": (first + 1, "Thank Ada"),
        first: (first, "Greet Ada"),
        first + 1: (first + 1, "Thank Ada"),
    }
    assert refusal(http.post(f"/flow-runs/{run}/rerun", json={"version": 99})) == (404, "VERSION_NOT_FOUND")
    versions = [{"version": version} for version in ("draft", -1, 10**30)]
    for bad in (*versions, {"version": None, "message": "x"}, {"versoin": 1}, []):
        assert refusal(http.post(f"/flow-runs/{run}/rerun", json=bad)) == (422, "INVALID_REQUEST"), bad


def test_overrides_are_those_of_the_new_call(http: httpx2.Client) -> None:
    overrides = {"ask": {"prompt": "Scold {{ message }}"}}
    run = run_of(http, "full", message="Ada", blockOverrides=overrides)
    assert "Scold" not in again(http, run)["result"]["text"]
    after = again(http, run, blockOverrides={"ask": {"prompt": "Praise {{ message }}"}})
    assert after["result"]["text"] == "Praise Ada"
    assert after["overridden"] == ["ask.prompt"]
    refused = http.post(f"/flow-runs/{run}/rerun", json={"blockOverrides": {"nothing": {}}})
    assert refusal(refused) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("mode", "message", "why"),
    [
        ("off", "fail", "capture mode off"),
        ("metadata_only", "fine", "of failed runs alone"),
        ("redacted", "from ada@example.com", "redacted"),
        ("full", "x" * 300_000, "snapshot_limit_bytes"),
    ],
)
def test_what_was_not_kept_whole_is_refused_with_the_reason(
    http: httpx2.Client, mode: str, message: str, why: str
) -> None:
    run = run_of(http, mode, message=message)
    before = http.get("/flow-runs").json()["runs"][0]["id"]
    assert refusal(http.post(f"/flow-runs/{run}/rerun", json={}), why) == (409, "INPUT_NOT_KEPT")
    assert http.get("/flow-runs").json()["runs"][0]["id"] == before, "nothing was started"


def test_an_input_without_secrets_is_whole_where_the_mode_is_redacted(
    server: RunningServer, http: httpx2.Client
) -> None:
    push(server, "redacted", "Greet ada@example.com, who is")
    run = run_of(http, "redacted", message="Ada")
    assert "[redacted]" in ended(http, run)["result"]["text"]
    assert again(http, run)["input"] == {"inputs": {"message": "Ada"}}


def test_a_repeat_under_its_key_starts_nothing(http: httpx2.Client) -> None:
    run = run_of(http, "full", message="Ada")
    key = {"Idempotency-Key": f"again {run}"}
    first, second = (http.post(f"/flow-runs/{run}/rerun", json={}, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    other = http.post(f"/flow-runs/{run}/rerun", json={"version": "production"}, headers=key)
    assert refusal(other) == (409, "IDEMPOTENCY_MISMATCH")
    ended(http, first.json()["executionId"])
