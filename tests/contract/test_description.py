"""The OpenAPI document, its page, the schema of flow files and the health check."""

import json
import re
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from runglass.errors import CODES
from runglass.flows.flow import flow_schema
from runglass.testing import RunningServer
from runglass.wire.run_api import ExecuteRequest, JobRequest

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


def test_the_references_of_the_document_lead_somewhere(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        at: Any = document
        for part in reference.split("/"):
            at = at[part]


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, each) for path, item in document["paths"].items() for method, each in item.items()]


def test_every_operation_says_what_an_error_looks_like_and_which_need_a_key(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        assert operation["responses"]["default"] == {"$ref": "#/components/responses/Error"}
        assert "400" not in operation["responses"]
        body = operation.get("requestBody", {"content": {}})["content"].get("application/json")
        assert body is None or body["schema"].get("additionalProperties", True), "it may hold more"
        open_to_all = path in ("/health", "/ready", "/api/v1/schemas/flow.json")
        assert operation.get("security", document["security"]) == ([{}] if open_to_all else [{"key": []}])
    error = document["components"]["responses"]["Error"]["content"]["application/json"]["schema"]
    assert set(error["properties"]["detail"]["properties"]["code"]["enum"]) == set(CODES)


@pytest.mark.parametrize(("call", "body"), [("execute", ExecuteRequest), ("jobs", JobRequest)])
def test_the_documented_body_is_the_one_that_is_read(document: dict[str, Any], call: str, body: Any) -> None:
    operation = document["paths"][f"/api/v1/seq/{{org}}/{{project}}/{{slug}}/{call}"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    known = [name for name in body.__struct_encode_fields__ if call == "execute" or name[:4] != "tool"]
    assert list(schema["properties"]) == known


def test_the_headers_that_are_read_are_documented(document: dict[str, Any]) -> None:
    starts, streams = [], []
    for path, method, operation in operations(document):
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
