"""The OpenAPI document, its page, the schema of flow files and the health check."""

import json
import re
from typing import Any

import httpx2
import jsonschema_rs
import pytest

import runglass
from runglass.errors import CODES
from runglass.flows.flow import flow_schema
from runglass.testing import RunningServer
from runglass.wire.run_api import ExecuteRequest

OF_A_RUN = [
    "/trace",
    "/trace/stream",
    "/trace/outline",
    "/trace/timeline",
    "/steps/{step_id}/trace",
    "/steps/{step_id}/payload",
    "/steps/{step_id}/diff",
    "/export",
    "/rerun",
]
BASES = ["/api/v1/flow-runs/{execution_id}", "/api/v1/seq/{org}/{project}/{slug}/runs/{execution_id}"]
MANAGED = ["", "/versions/{number}", "/publish", "/production"]
PATHS = {
    "/health",
    "/ready",
    "/api/v1/flow-runs",
    "/api/v1/flow-runs/histogram",
    "/api/v1/flow-runs/stream",
    "/api/v1/schemas/flow.json",
    "/api/v1/seq/{org}/{project}/{slug}/execute",
    "/api/v1/seq/{org}/{project}/{slug}/{version}/execute",
    "/api/v1/seq/{org}/{project}/{slug}/step",
    "/api/v1/seq/{org}/{project}/{slug}/{version}/step",
    "/api/v1/seq/{org}/{project}/{slug}/jobs",
    "/api/v1/seq/{org}/{project}/{slug}/jobs/{execution_id}",
    "/api/v1/seq/{org}/{project}/{slug}/{version}/jobs",
    "/api/v1/seq/{org}/{project}/{slug}/{version}/jobs/{execution_id}",
    "/api/v1/seq/sessions/{session_id}",
    "/api/v1/flows",
    "/api/v1/flows/{org}/{project}",
    *(f"/api/v1/flows/{{org}}/{{project}}/{{slug}}{more}" for more in MANAGED),
    "/api/v1/keys",
    "/api/v1/keys/{key_id}",
    "/api/v1/audit",
    "/api/v1/flow-runs/import",
    *(f"/api/v1/viewer/{what}" for what in ("session", "me", "tickets")),
    "/api/v1/flow-runs/{execution_id}/diff/{other_id}",
    *BASES,
    *(base + path for base in BASES for path in OF_A_RUN),
}

OTLP = {
    *(
        f"{prefix}/v1/{signal}"
        for prefix in ("", "/otel", "/api/public/otel", "/v1/private/otel")
        for signal in ("traces", "logs", "metrics")
    ),
    *("/", "/otel"),
}


@pytest.fixture(scope="module")
def document(server: RunningServer, nobody: httpx2.Client) -> dict[str, Any]:
    found: dict[str, Any] = nobody.get(f"{server.address}/docs/openapi.json").json()
    return found


def test_the_document_has_every_path_and_its_references_lead_somewhere(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == PATHS | OTLP
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        at: Any = document
        for part in reference.split("/"):
            at = at[part]


def test_every_operation_says_what_an_error_looks_like_and_which_need_a_key(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Error"}
            assert "400" not in operation["responses"]
            open_to_all = path in ("/health", "/ready", "/api/v1/schemas/flow.json")
            assert operation.get("security", document["security"]) == ([{}] if open_to_all else [{"key": []}])
    error = document["components"]["responses"]["Error"]["content"]["application/json"]["schema"]
    assert set(error["properties"]["detail"]["properties"]["code"]["enum"]) == set(CODES)


def test_ranges_and_what_the_caller_has_already_are_documented(document: dict[str, Any]) -> None:
    for base in BASES:
        responses = document["paths"][f"{base}/steps/{{step_id}}/payload"]["get"]["responses"]
        assert {status for status, response in responses.items() if "content" not in response} == {
            "206",
            "304",
            "default",
        }


def test_the_documented_body_is_the_one_that_is_read(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/v1/seq/{org}/{project}/{slug}/execute"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert tuple(schema["properties"]) == ExecuteRequest.__struct_encode_fields__


def test_bodies_may_hold_more_than_is_documented(document: dict[str, Any]) -> None:
    closed = []
    for path, item in document["paths"].items():
        for operation in item.values():
            body = operation.get("requestBody", {"content": {}})["content"].get("application/json")
            if body is not None and not body["schema"].get("additionalProperties", True):
                closed.append(path)
    assert closed == []


def test_the_headers_that_are_read_are_documented(document: dict[str, Any]) -> None:
    starts, streams = [], []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            headers = [each["name"] for each in operation.get("parameters", []) if each["in"] == "header"]
            if method == "post" and path.rpartition("/")[2] in ("execute", "jobs", "step", "rerun"):
                starts.append(headers)
            elif path.endswith("/stream"):
                streams.append(headers)
            elif path.endswith(("/outline", "/timeline")):
                assert headers == ["Accept-Encoding"]
            elif path.endswith("/payload"):
                assert headers == ["Range", "If-Range", "If-None-Match"]
            elif path in OTLP:
                assert headers == ["x-runglass-flow", "Content-Encoding"]
            else:
                assert not headers, path
    assert starts == [["X-Session-Id", "Idempotency-Key", "traceparent", "tracestate"]] * 8
    assert streams == [["Last-Event-ID"]] * 3


def test_an_idempotency_key_may_be_as_long_as_is_documented(
    document: dict[str, Any], http: httpx2.Client
) -> None:
    parameters = document["paths"]["/api/v1/seq/{org}/{project}/{slug}/execute"]["post"]["parameters"]
    (schema,) = (each["schema"] for each in parameters if each["name"] == "Idempotency-Key")
    for length, status in ((schema["maxLength"], 200), (schema["maxLength"] + 1, 422)):
        answer = http.post(
            "/seq/acme/demo/anything/execute", json={}, headers={"Idempotency-Key": "k" * length}
        )
        assert answer.status_code == status


def test_the_page_works_offline(server: RunningServer, nobody: httpx2.Client) -> None:
    answer = nobody.get(f"{server.address}/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)\w+:?//|@import|url\(|https?://""", answer.text)
    assert "openapi.json" in answer.text


def test_the_schema_of_flow_files_is_the_one_that_checks_them(nobody: httpx2.Client) -> None:
    answer = nobody.get("/schemas/flow.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == flow_schema()
    jsonschema_rs.meta.validate(answer.json())


def test_health_tells_the_version(server: RunningServer, nobody: httpx2.Client) -> None:
    answer = nobody.get(f"{server.address}/health")
    assert answer.json() == {"status": "ok", "version": runglass.__version__, "executesRuns": True}
    assert answer.headers["x-request-id"]
