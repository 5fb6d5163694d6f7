"""What every request passes: its key, its id, the spelling of its path, its query, and half characters.

What each role may do on each path is in `test_roles.py`.
"""

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.wire import UUID, detail, execute, head_of, ran, raw_connection, refusal, rest_of


@pytest.mark.parametrize(
    "asked",
    [
        *("GET /api/v1", "GET /api/v1/", "GET /api/v1/no/such/path"),
        *("DELETE /api/v1/flow-runs", "HEAD /api/v1/flow-runs", "OPTIONS /api/v1/flow-runs"),
        *("GET /api/v1/schemas/other.json", "GET /api/v1/schemas/flow.json/more"),
        # No spelling of a path is a way around the key.
        *("GET //api/v1/flow-runs", "GET /api//v1/flow-runs", "GET /%61pi/v1/flow-runs"),
        "GET /api/v1//flow-runs/",
    ],
)
def test_nothing_below_the_api_is_open_without_a_good_key(
    server: RunningServer, nobody: httpx2.Client, asked: str
) -> None:
    """Not even whether a path or a method is there."""
    method, path = asked.split()
    for headers in ({}, {"Authorization": "Bearer nk_wrong"}):
        answer = nobody.request(method, f"{server.address}{path}", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"]
        assert method == "HEAD" or detail(answer)["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        *((f"{scheme} {{key}}", 200) for scheme in ("Bearer", "bearer", "BEARER", "Bearer ")),
        *((bad, 401) for bad in ("", "Bearer", "Bearer other", "Basic {key}", "{key}", "Bearer {key}x")),
    ],
)
def test_a_key_is_shown_whole_behind_its_scheme_in_any_case(
    server: RunningServer, nobody: httpx2.Client, shown: str, status: int
) -> None:
    headers = {"Authorization": shown.format(key=server.key)}
    assert nobody.get("/flow-runs", headers=headers).status_code == status


def test_request_ids_are_echoed_when_sane_and_made_otherwise(
    server: RunningServer, http: httpx2.Client, nobody: httpx2.Client
) -> None:
    run = execute(http, "anything")
    for path in ("/flow-runs", "/none", f"/flow-runs/{run}/trace/stream", f"{server.address}/health"):
        for client in (http, nobody):
            sane = {"X-Request-ID": "abc-DEF_1.2"}
            assert client.get(path, headers=sane).headers.get_list("x-request-id") == ["abc-DEF_1.2"]
            for bad in ("", "a b", "x" * 129, "<script>", "a,b"):
                made = client.get(path, headers={"X-Request-ID": bad}).headers["x-request-id"]
                assert UUID.fullmatch(made)


SESSION = "0190b5f0-1c2d-7000-8000-00000000bad0"
NO_TIMES = ("", "yesterday", "2026-13-01", "2026-01-01T00:00:00 02:00", "1700000000000")
NO_CURSORS = ("cursor=", "cursor=x", "cursor=é", "cursor=%21", "cursor=AZogFR2WdbYhdO00g==extra")
NO_LIMITS = ("limit=0", "limit=101", "limit=x", "limit=", "limit=5&limit=6", "limt=5")
NO_MANAGED_LIMITS = ("limit=0", "limit=1001", "limit=all", "limit=", "limt=5")
BELOW_A_RUN = {
    "steps/keep/trace": (
        *("attempt=0", "attempt=newest", "attempt=", "attempt=1&attempt=2"),
        *("loop_index=x", "loopindex=1", "position=0", "position=x"),
        *("part_bytes=1023", "part_bytes=2000&attempt=all"),
    ),
    "steps/keep/payload": ("part=prompt", "attempt=all", "attempt=0", "loop_index=x"),
    "steps/keep/diff": ("with_attempt=all",),
    "trace/stream": ("after=x", "after=-1", "after=1.5", "after=1 2", f"after={'9' * 19}", "after="),
    "trace/outline": ("after=-1", "after=x", "limit=0", "limit=200001", "seq=-1", "seq=none"),
    "trace/timeline": ("to=5&from=5", "buckets=0", "buckets=2001", "from=-1", "to=x"),
    "export": ("format=xml",),
    "diff/{run}": ("all=perhaps",),
}
QUERIES: dict[str, tuple[str, ...]] = {
    "/flow-runs": (
        *(*NO_LIMITS, *NO_CURSORS, "status=done", "status=", "status=null", "flow_di=x", "page=2"),
        *(f"{name}={time}" for name in ("since", "until") for time in NO_TIMES),
    ),
    "/flow-runs/histogram": ("buckets=0", "buckets=9", "buckets=201", "buckets=many"),
    "/flow-runs/stream": ("after=x", "limit=5"),
    "/seq/acme/demo/anything/jobs": (
        *(*NO_LIMITS, *NO_CURSORS, "status=paused", "status=null", "stauts=failed"),
    ),
    "/seq/sessions/{session}": (*NO_LIMITS, *NO_CURSORS),
    **dict.fromkeys(
        ("/flows", "/flows/acme/demo", "/flows/acme/demo/anything", "/keys"),
        (*NO_MANAGED_LIMITS, "cursor=", "cursor=%21", "cursor=_w", "cursor=é"),
    ),
    "/audit": (*NO_LIMITS, "cursor=x", f"cursor={'_' * 11}", "since=soon", "actor=x"),
    **{f"/flow-runs/{{run}}/{path}": queries for path, queries in BELOW_A_RUN.items()},
}


@pytest.fixture(scope="module")
def run(http: httpx2.Client) -> str:
    return ran(http, "anything", headers={"X-Session-Id": SESSION})


@pytest.mark.parametrize(("path", "query"), [(path, each) for path in QUERIES for each in QUERIES[path]])
def test_a_bad_query_is_refused_by_the_name_of_its_parameter(
    http: httpx2.Client, run: str, path: str, query: str
) -> None:
    answer = http.get(f"{path.format(run=run, session=SESSION)}?{query}")
    name = query.partition("=")[0]
    said = f"`{name}`: unknown parameter; did you mean 'limit'" if name == "limt" else f"`{name}`"
    assert refusal(answer, said) == (422, "INVALID_REQUEST")


# Half a surrogate pair, and bytes that are no UTF-8, are refused or replaced: never a fault of the server,
# and never a run that cannot be recorded or read.
HALF_CHARACTERS = {
    "result": "type: code, code: \"return {'x': ['\\\\ud800'], '\\\\udc00': 1}\"",
    "printed": "type: code, code: \"print('\\\\ud800'); return {}\"",
    "over": "type: loop, over: \"['\\\\ud800']\", steps: [{id: in, type: passthrough}]",
    "truth": "type: condition, if: \"message == '\\\\ud800'\", then: [{id: in, type: passthrough}]",
    "split": 'type: passthrough, input: {x: "{{ message[:1] }}", y: "{{ message | tojson }}"}',
    "raised": "type: code, on_error: continue, code: \"raise ValueError('\\\\ud800')\"",
    "emoji": 'type: passthrough, input: {x: "\\ud83d\\ude00"}',
}


@pytest.mark.parametrize("slug", HALF_CHARACTERS)
def test_half_characters_from_code_and_templates_are_recorded_and_read(
    server: RunningServer, http: httpx2.Client, slug: str
) -> None:
    server.push(f"slug: {slug}\nsteps: [{{id: s, {HALF_CHARACTERS[slug]}}}]\n")
    answer = http.post(f"/seq/acme/demo/{slug}/execute", json={"message": "\U0001f600"})
    assert answer.status_code == 200, answer.text
    trace = http.get(f"/flow-runs/{answer.json()['executionId']}/trace")
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
def test_a_body_with_half_a_character_is_refused(http: httpx2.Client, body: bytes) -> None:
    for path in ("execute", "jobs", "v1/step"):
        answer = http.post(f"/seq/acme/demo/anything/{path}", content=body)
        assert refusal(answer, "half a surrogate pair") == (422, "INVALID_REQUEST")


def test_a_flow_with_half_a_character_is_refused(http: httpx2.Client) -> None:
    text = rb'{"slug": "bad", "steps": [{"id": "s", "type": "passthrough", "input": {"x": "\ud800"}}]}'
    answer = http.put("/flows/acme/demo/bad", content=text)
    assert refusal(answer) == (422, "INVALID_REQUEST")
    (problem,) = detail(answer)["problems"]
    assert "half a surrogate pair" in problem["message"]
    template = b"slug: bad\nsteps: [{id: s, type: llm, model: echo, prompt: \"{{ '\\\\ud800' }}\"}]\n"
    assert refusal(http.put("/flows/acme/demo/bad", content=template)) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/seq/acme/demo/%ED%A0%80/execute"),
        ("POST", "/seq/%FF/demo/anything/execute"),
        ("GET", "/flow-runs/%ED%A0%80/trace"),
        ("GET", "/flow-runs?cursor=%ED%A0%80"),
        ("GET", "/flow-runs?status=%FF"),
        ("GET", "/flow-runs?flow_id=%ED%A0%80"),
        ("GET", "/flows/acme/%ED%A0%80"),
        ("GET", "/%ED%A0%80"),
    ],
)
def test_a_path_or_query_with_half_a_character_is_not_found(
    http: httpx2.Client, method: str, path: str
) -> None:
    answer = http.request(method, path, content=b"{}" if method == "POST" else None)
    assert answer.status_code < 500
    answer.json()


@pytest.mark.parametrize(
    "header",
    [
        *(b"Idempotency-Key: \xed\xa0\x80", b"X-Session-Id: \xff", b"Authorization: Bearer \xff"),
        *(b"traceparent: \xed\xa0\x80", b"Content-Type: \xff", b"User-Agent: \xff"),
    ],
)
def test_a_header_with_half_a_character_is_no_server_error(server: RunningServer, header: bytes) -> None:
    body = b'{"message":"a"}'
    length = f"Content-Length: {len(body)}"
    head = head_of(server, "POST", "/api/v1/seq/acme/demo/anything/execute", "Connection: close", length)
    if header.startswith(b"Authorization"):
        head = head.replace(f"Authorization: Bearer {server.key}\r\n".encode(), b"")
    with raw_connection(server, head.removesuffix(b"\r\n") + header + b"\r\n\r\n" + body) as connection:
        answered = rest_of(connection)
    assert int(answered.split()[1]) < 500, answered
