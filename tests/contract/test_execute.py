"""`POST …/execute`: bodies in, outcomes out, and inputs with the defaults that the flow declares."""

import gzip
import re
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import FLOWS, UUID, detail, refusal
from tests.servers import server_with

PATH = "/seq/acme/demo/words/execute"
LETTER = """
slug: letter
inputs:
  type: object
  additionalProperties: false
  properties:
    message: {type: string, default: Dear reader}
    tone: {$ref: "#/$defs/tone"}
    page: {type: object, properties: {size: {type: string, default: A4}, lines: {type: integer}}}
    copies: {type: integer, default: 1, minimum: 1}
    never: {enum: []}
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

server = server_with(*FLOWS, LETTER, UNFIT, capture="full")


def test_a_completed_run_answers_with_result_flow_count_and_id(http: httpx2.Client) -> None:
    answer = http.post(PATH, json={"message": "a b"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert sorted(body) == ["blockCount", "executionId", "flowId", "result", "status"]
    assert body["status"] == "completed"
    assert body["result"] == {"items": [{"text": "A"}, {"text": "B"}]}
    assert body["blockCount"] == 5
    assert UUID.fullmatch(body["executionId"])
    run = http.get(f"/flow-runs/{body['executionId']}/trace").json()["flowRun"]
    assert (run["flowId"], run["triggerType"]) == (body["flowId"], "api")


def test_null_fields_and_empty_lists_count_as_not_given(http: httpx2.Client) -> None:
    nothing = dict.fromkeys(
        ["parameters", "blockOverrides", "trace", "messages", "tools", "toolChoice", "executionId"]
    )
    empty: dict[str, Any] = {name: [] for name in ("messages", "attachments", "tools", "toolCallMessages")}
    for given in (nothing, empty):
        assert http.post(PATH, json={"message": "a", **given}).status_code == 200


def test_a_failed_run_is_step_failed_with_both_ids_and_a_readable_trace(http: httpx2.Client) -> None:
    answer = http.post("/seq/acme/demo/broken/execute", json={})
    assert answer.status_code == 500
    error = detail(answer)
    assert (error["code"], error["stepId"]) == ("STEP_FAILED", "bad")
    assert "it broke" in error["message"]
    assert error["error"]["code"] == "CODE_ERROR"
    trace = http.get(f"/flow-runs/{error['executionId']}/trace").json()
    assert trace["flowRun"]["status"] == "failed"
    assert [(step["stepId"], step["status"]) for step in trace["steps"]] == [
        ("fine", "completed"),
        ("bad", "failed"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"message": NaN}',
        b'{"message": "\xff"}',
        b"[]",
        b"[" * 100_000,
        b'{"parameters":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b'{"parameters":{"a":' + b"[" * 101 + b"]" * 101 + b"}}",
        b'{"parameters":{"a":1e999}}',
        b"message=a",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(http: httpx2.Client, body: bytes) -> None:
    assert refusal(http.post(PATH, content=body), "body") == (422, "INVALID_REQUEST")


def test_unknown_flows_and_versions(http: httpx2.Client) -> None:
    assert refusal(http.post("/seq/acme/demo/none/execute", json={})) == (404, "FLOW_NOT_FOUND")
    for version in ("v99", "v" + "9" * 30):
        answer = http.post(f"/seq/acme/demo/words/{version}/execute", json={})
        assert refusal(answer) == (404, "VERSION_NOT_FOUND")
    for version in ("v", "vx", "v-1", "v01", "v00", "V1", "v1.0", "latest", "v\u0661"):
        answer = http.post(f"/seq/acme/demo/words/{version}/execute", json={})
        assert refusal(answer) == (400, "INVALID_VERSION")


@pytest.mark.parametrize("call", ["execute", "jobs", "step"])
def test_a_version_in_the_query_is_as_good_as_one_in_the_path(
    server: RunningServer, http: httpx2.Client, call: str
) -> None:
    def flow(text: str) -> str:
        return f"slug: asked-{call}\nsteps: [{{id: a, type: passthrough, input: {{text: {text}}}}}]\n"

    for text in ("first", "second"):
        server.push(flow(text))
    server.push(flow("draft"), publish=False)
    base = f"/seq/acme/demo/asked-{call}"

    def version(target: str) -> int:
        answer = http.post(f"{base}{target}", json={})
        assert answer.status_code in (200, 202), answer.text
        run = re.search('"executionId":"([^"]+)"', answer.text)
        assert run is not None
        found: int = http.get(f"/flow-runs/{run[1]}/trace").json()["flowRun"]["version"]
        return found

    assert version(f"/{call}") == 2
    assert version(f"/{call}?version=1") == 1
    assert version(f"/{call}?version=2&userId=7") == 2
    assert version(f"/v1/{call}?version=1") == 1
    if call != "step":
        assert version(f"/{call}?version=0") == 0
    else:
        at_path, in_query = (http.post(f"{base}{at}", json={}) for at in ("/v0/step", "/step?version=0"))
        assert refusal(at_path) == refusal(in_query) == (400, "INVALID_VERSION")
    for wrong in ("", "v1", "01", "-1", "1.0", "latest", "\u0661"):
        answer = http.post(f"{base}/{call}", json={}, params={"version": wrong})
        assert refusal(answer) == (400, "INVALID_VERSION")
    assert refusal(http.post(f"{base}/v1/{call}?version=2", json={})) == (400, "INVALID_VERSION")
    assert refusal(http.post(f"{base}/{call}?version=99", json={})) == (404, "VERSION_NOT_FOUND")
    assert refusal(http.post(f"/seq/acme/none/words/{call}?version=x", json={})) == (404, "FLOW_NOT_FOUND")


def test_a_session_id_must_be_a_uuid(http: httpx2.Client) -> None:
    for wrong in ("x", "", "0" * 32, "{00000000-0000-0000-0000-000000000000}"):
        answer = http.post(PATH, json={"message": "a"}, headers={"X-Session-Id": wrong})
        assert refusal(answer) == (400, "EXECUTION_ID_INVALID")


@pytest.mark.parametrize("path", [PATH, "/keys", "/flow-runs/import"])
def test_a_compressed_body_is_refused_by_its_encoding(http: httpx2.Client, path: str) -> None:
    body = gzip.compress(b'{"message": "a"}')
    answer = http.post(path, content=body, headers={"Content-Encoding": "gzip"})
    assert refusal(answer, "encoded as 'gzip'") == (422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "text/plain", "application/x-msgpack", None]
)
def test_a_json_body_is_taken_whatever_its_declared_type(
    http: httpx2.Client, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = http.post(PATH, content=b'{"message": "a"}', headers=headers)
    assert answer.status_code == 200, answer.text


def test_defaults_join_the_inputs_of_a_run_also_nested_and_all_are_checked(http: httpx2.Client) -> None:
    given = {"tone": "cool", "page": {"lines": 3}}
    answer = http.post("/seq/acme/demo/letter/execute", json={"parameters": given})
    page = {"lines": 3, "size": "A4"}
    filled = {"message": "Dear reader", "tone": "cool", "copies": 1, "page": page}
    assert answer.json()["result"] == {"all": filled}
    trace = http.get(f"/flow-runs/{answer.json()['executionId']}/trace").json()
    first = next(step for step in trace["steps"] if step["stepId"] == "write")
    assert first["inputContext"].items() >= filled.items()
    assert first["outputContext"] == {"text": "Dear reader"}
    stepped = http.post("/seq/acme/demo/letter/v1/step", json={"stepIndex": 0})
    assert stepped.status_code == 200
    assert "Dear reader" in stepped.text
    for slug, unfit, name in (
        ("letter", {"copies": 0}, "copies"),
        ("letter", {"never": 1}, "never"),
        ("unfit", {}, "copies"),
    ):
        refused = http.post(f"/seq/acme/demo/{slug}/execute", json={"parameters": unfit})
        assert refusal(refused, f"parameters.{name}") == (422, "INVALID_REQUEST")
