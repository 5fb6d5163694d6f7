"""Half a surrogate pair, and bytes that are no UTF-8, at every edge of the server: refused, or replaced.

Never a fault of the server, and never a run that cannot be recorded or read.
"""

from collections.abc import Iterator

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import detail, http_for, raw_connection, refusal, rest_of

FLOWS = {
    "result": "type: code, code: \"return {'x': ['\\\\ud800'], '\\\\udc00': 1}\"",
    "printed": "type: code, code: \"print('\\\\ud800'); return {}\"",
    "over": "type: loop, over: \"['\\\\ud800']\", steps: [{id: in, type: passthrough}]",
    "truth": "type: condition, if: \"message == '\\\\ud800'\", then: [{id: in, type: passthrough}]",
    "split": 'type: passthrough, input: {x: "{{ message[:1] }}", y: "{{ message | tojson }}"}',
    "raised": "type: code, on_error: continue, code: \"raise ValueError('\\\\ud800')\"",
    "emoji": 'type: passthrough, input: {x: "\\ud83d\\ude00"}',
}


@pytest.fixture(scope="module")
def flows(server: RunningServer) -> Iterator[httpx2.Client]:
    for slug, step in FLOWS.items():
        server.push(f"slug: {slug}\nsteps: [{{id: s, {step}}}]\n")
    with http_for(server, server.key) as client:
        yield client


@pytest.mark.parametrize("slug", FLOWS)
def test_half_characters_from_code_and_templates_are_recorded_and_read(
    flows: httpx2.Client, slug: str
) -> None:
    answer = flows.post(f"/seq/acme/demo/{slug}/execute", json={"message": "\U0001f600"})
    assert answer.status_code == 200, answer.text
    trace = flows.get(f"/flow-runs/{answer.json()['executionId']}/trace")
    assert trace.status_code == 200
    assert trace.json()["flowRun"]["status"] == "completed"
    shown = {"result": {"x": ["\ufffd"], "\ufffd": 1}, "emoji": {"x": "\U0001f600"}}
    assert answer.json()["result"] == shown.get(slug, answer.json()["result"])


@pytest.mark.parametrize(
    "body",
    [
        rb'{"message":"\ud800"}',
        rb'{"message":"a","parameters":{"x":["\udc00"]}}',
        rb'{"message":"a","parameters":{"\ud800":1}}',
        rb'{"message":"a","executionId":"\ud83d"}',
        rb'{"message":"a","toolCallMessages":[{"role":"tool","toolCallId":"c","content":"\ud800"}]}',
    ],
)
def test_a_body_with_half_a_character_is_refused(flows: httpx2.Client, body: bytes) -> None:
    for path in ("execute", "jobs", "v1/step"):
        answer = flows.post(f"/seq/acme/demo/emoji/{path}", content=body)
        assert refusal(answer, "half a surrogate pair") == (422, "INVALID_REQUEST")


def test_a_flow_with_half_a_character_is_refused(flows: httpx2.Client) -> None:
    text = rb'{"slug": "bad", "steps": [{"id": "s", "type": "passthrough", "input": {"x": "\ud800"}}]}'
    answer = flows.put("/flows/acme/demo/bad", content=text)
    assert refusal(answer) == (422, "INVALID_REQUEST")
    (problem,) = detail(answer)["problems"]
    assert "half a surrogate pair" in problem["message"]
    template = b"slug: bad\nsteps: [{id: s, type: llm, model: echo, prompt: \"{{ '\\\\ud800' }}\"}]\n"
    assert refusal(flows.put("/flows/acme/demo/bad", content=template)) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/seq/acme/demo/%ED%A0%80/execute"),
        ("POST", "/seq/%FF/demo/emoji/execute"),
        ("GET", "/flow-runs/%ED%A0%80/trace"),
        ("GET", "/flow-runs?cursor=%ED%A0%80"),
        ("GET", "/flow-runs?status=%FF"),
        ("GET", "/flow-runs?flow_id=%ED%A0%80"),
        ("GET", "/flows/acme/%ED%A0%80"),
        ("GET", "/%ED%A0%80"),
    ],
)
def test_a_path_or_query_with_half_a_character_is_not_found(
    flows: httpx2.Client, method: str, path: str
) -> None:
    answer = flows.request(method, path, content=b"{}" if method == "POST" else None)
    assert answer.status_code < 500
    answer.json()


@pytest.mark.parametrize(
    "header",
    [
        b"Idempotency-Key: \xed\xa0\x80",
        b"X-Session-Id: \xff",
        b"Authorization: Bearer \xff",
        b"traceparent: \xed\xa0\x80",
        b"Content-Type: \xff",
        b"User-Agent: \xff",
    ],
)
def test_a_header_with_half_a_character_is_no_server_error(
    server: RunningServer, flows: httpx2.Client, header: bytes
) -> None:
    key = "" if header.startswith(b"Authorization") else f"Authorization: Bearer {server.key}\r\n"
    head = f"POST /api/v1/seq/acme/demo/emoji/execute HTTP/1.1\r\nHost: here\r\n{key}Connection: close\r\n"
    with raw_connection(server) as connection:
        body = b'{"message":"a"}'
        connection.sendall(head.encode() + header + b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        answered = rest_of(connection)
    assert int(answered.split()[1]) < 500, answered
