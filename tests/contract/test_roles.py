"""Every route: what each kind of caller may do, that strangers learn nothing, how OpenAPI tells of it."""

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import jsonschema_rs
import pytest

from runglass.errors import CODES
from runglass.flows.flow import flow_schema
from runglass.server.endpoints import ENDPOINTS
from runglass.testing import RunningServer
from runglass.wire.admin_api import ROLES
from runglass.wire.run_api import ExecuteRequest, JobRequest
from tests.contract.wire import ANYTHING, detail, http_for, known_key, read, refusal

API = "/api/v1"
OTLP = ("", "/otel", "/api/public/otel", "/v1/private/otel")
FLOW = "/seq/{org}/{project}/{slug}"
MANAGED = "/flows/{org}/{project}/{slug}"
OPEN = {("get", "/health"), ("get", "/ready"), ("get", f"{API}/schemas/flow.json")}


class Row(NamedTuple):
    """A route, its status for each role, and the code with which an object of others is not found.

    Without `unseen` the route speaks of the caller's own project whoever asks.
    """

    method: str
    path: str
    read: int
    run: int
    admin: int
    unseen: str | None = "FLOW_NOT_FOUND"
    body: Any = None
    record: int = 403

    @property
    def whole_path(self) -> str:
        """Below the API, but for the paths that senders of traces know."""
        return f"{API}{self.path}" if self.record == 403 else self.path


ENDLESS_STREAM = "/flow-runs/stream"
"""Ends when the caller leaves: only its status is looked at."""

ROWS = [
    Row("GET", "/flow-runs", 200, 200, 200, unseen=None),
    Row("GET", "/flow-runs/histogram", 200, 200, 200, unseen=None),
    Row("GET", ENDLESS_STREAM, 200, 200, 200, unseen=None),
    *(
        Row("GET", f"{run}{resource}", 200, 200, 200, unseen=unseen)
        for run, unseen in (
            ("/flow-runs/{execution_id}", "RUN_NOT_FOUND"),
            (f"{FLOW}/runs/{{execution_id}}", "FLOW_NOT_FOUND"),
        )
        for resource in (
            *("", "/trace", "/trace/stream", "/trace/outline", "/trace/timeline"),
            *("/steps/{step_id}/trace", "/steps/{step_id}/payload", "/steps/{step_id}/diff", "/export"),
        )
    ),
    Row("GET", "/flow-runs/{execution_id}/diff/{other_id}", 200, 200, 200, unseen="RUN_NOT_FOUND"),
    Row("POST", "/flow-runs/{execution_id}/rerun", 403, 202, 202, unseen="RUN_NOT_FOUND", body={}),
    Row("POST", f"{FLOW}/runs/{{execution_id}}/rerun", 403, 202, 202, body={}),
    # The run has ended, so who may cancel it is told that it is too late.
    Row("DELETE", "/flow-runs/{execution_id}", 403, 409, 409, unseen="RUN_NOT_FOUND"),
    Row("DELETE", f"{FLOW}/runs/{{execution_id}}", 403, 409, 409),
    # The body is no run.
    Row("POST", "/flow-runs/import", 403, 403, 422, unseen=None, body={}),
    Row("POST", f"{FLOW}/execute", 403, 200, 200, body={}),
    Row("POST", f"{FLOW}/{{version}}/execute", 403, 200, 200, body={}),
    Row("POST", f"{FLOW}/step", 403, 200, 200, body={}),
    Row("POST", f"{FLOW}/{{version}}/step", 403, 200, 200, body={}),
    Row("GET", f"{FLOW}/jobs", 200, 200, 200),
    Row("POST", f"{FLOW}/jobs", 403, 202, 202, body={}),
    Row("POST", f"{FLOW}/{{version}}/jobs", 403, 202, 202, body={}),
    Row("GET", f"{FLOW}/jobs/{{execution_id}}", 200, 200, 200),
    Row("GET", f"{FLOW}/{{version}}/jobs/{{execution_id}}", 200, 200, 200),
    Row("GET", "/seq/sessions/{session_id}", 200, 200, 200, unseen="SESSION_NOT_FOUND"),
    Row("GET", "/flows", 200, 200, 200, unseen=None),
    Row("GET", "/flows/{org}/{project}", 200, 200, 200),
    Row("GET", MANAGED, 200, 200, 200),
    Row("PUT", MANAGED, 403, 403, 200, body=ANYTHING),
    Row("DELETE", MANAGED, 403, 403, 204),
    Row("GET", f"{MANAGED}/versions/{{number}}", 200, 200, 200),
    Row("POST", f"{MANAGED}/publish", 403, 403, 200),
    Row("PUT", f"{MANAGED}/production", 403, 403, 200, body={"version": 1}),
    Row("GET", "/keys", 403, 403, 200, unseen=None),
    Row("POST", "/keys", 403, 403, 201, unseen=None, body={"role": "read"}),
    Row("DELETE", "/keys/{key_id}", 403, 403, 200, unseen="KEY_NOT_FOUND"),
    Row("GET", "/audit", 403, 403, 200, unseen=None),
    Row("POST", "/viewer/session", 204, 204, 204, unseen=None),
    Row("DELETE", "/viewer/session", 204, 204, 204, unseen=None),
    Row("GET", "/viewer/me", 200, 200, 200, unseen=None),
    Row("POST", "/viewer/tickets", 201, 201, 201, unseen=None, body={}),
    *(
        Row("POST", path, 403, 200, 200, unseen=None, body={}, record=200)
        for path in (
            *(f"{prefix}/v1/{signal}" for prefix in OTLP for signal in ("traces", "logs", "metrics")),
            *("/", "/otel"),
        )
    ),
]
HIDDEN = [row for row in ROWS if row.unseen]
TAKES_SPANS = [row.path for row in ROWS if row.record == 200]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
every_hidden_row = pytest.mark.parametrize("row", HIDDEN, ids=lambda row: f"{row.method} {row.path}")

NOWHERE = {
    "org": "nobody",
    "project": "nowhere",
    "slug": "no-such-flow",
    "version": "v1",
    "number": "1",
    "step_id": "no-such-step",
    "execution_id": "01900000-0000-7000-8000-000000000000",
    "other_id": "01900000-0000-7000-8000-000000000002",
    "session_id": "01900000-0000-7000-8000-000000000001",
    "key_id": "987654321",
}


class World(NamedTuple):
    """What there is in `acme/demo`, and callers of each role: of that project, and strangers of another."""

    names: dict[str, str]
    callers: dict[str, httpx2.Client]
    strangers: dict[str, httpx2.Client]


@pytest.fixture(scope="module")
def world(server: RunningServer) -> Iterator[World]:
    server.push(ANYTHING, org="acme", project="strangers")
    callers, strangers = (
        {role: http_for(server, server.make_key("acme", project, role)) for role in ROLES}
        for project in ("demo", "strangers")
    )
    session = str(uuid.uuid4())
    admin = callers["admin"]
    job = admin.post("/seq/acme/demo/anything/v1/jobs", json={}, headers={"X-Session-Id": session}).json()
    assert "event: flow_completed" in admin.get(f"/flow-runs/{job['executionId']}/trace/stream").text
    names = {
        "org": "acme",
        "project": "demo",
        "slug": "anything",
        "version": "v1",
        "number": "1",
        "step_id": "keep",
        "execution_id": job["executionId"],
        "other_id": job["executionId"],
        "session_id": session,
    }
    yield World(names, callers, strangers)
    for http in (*callers.values(), *strangers.values()):
        http.close()


@pytest.fixture(scope="module")
def document(server: RunningServer, nobody: httpx2.Client) -> dict[str, Any]:
    return read(nobody, f"{server.address}/docs/openapi.json")


@pytest.fixture
def names(server: RunningServer, world: World, row: Row) -> dict[str, str]:
    """The names of what there is, with a key of its own for each test to revoke, or a flow to delete."""
    made = {"key_id": str(known_key(server, server.make_key("acme", "demo")).id)}
    if (row.method, row.path) == ("DELETE", MANAGED):
        made["slug"] = "some-flow"
        server.push(ANYTHING.replace("anything", "some-flow"))
    return world.names | made


def ask(http: httpx2.Client, row: Row, names: dict[str, str], **headers: str) -> httpx2.Response:
    path = str(http.base_url.join(row.whole_path.format(**names)))
    if row.path == ENDLESS_STREAM:
        with http.stream(row.method, path, headers=headers) as answer:
            if answer.status_code != 200:
                answer.read()
            return answer
    body = {"content": row.body.encode()} if isinstance(row.body, str) else {"json": row.body}
    return http.request(row.method, path, headers=headers, **body)


def test_the_table_has_every_route_that_there_is(document: dict[str, Any]) -> None:
    table = {(row.method.lower(), row.whole_path) for row in ROWS} | OPEN
    assert table == {(each.method.lower(), re.sub(r":\w+}", "}", each.path)) for each in ENDPOINTS}
    assert table == {(method, path) for path, item in document["paths"].items() for method in item}


@every_row
@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_the_table_says(
    world: World, names: dict[str, str], row: Row, role: str
) -> None:
    answer = ask(world.callers[role], row, names)
    assert answer.status_code == getattr(row, role), answer.text
    if answer.status_code == 403:
        assert refusal(answer, role) == (403, "FORBIDDEN")
        about = names["execution_id"] if "{execution_id}" in row.path else None
        assert detail(answer).get("executionId") == about


@every_row
def test_without_a_good_key_all_answers_are_alike(
    server: RunningServer, nobody: httpx2.Client, names: dict[str, str], row: Row
) -> None:
    revoked = server.make_key("acme", "demo")
    found = known_key(server, revoked)
    assert server.call(server.runtime.store.revoke_key(found.project_id, found.id))
    for headers in ({}, {"Authorization": "Bearer nk_wrong"}, {"Authorization": f"Bearer {revoked}"}):
        there, none = (ask(nobody, row, each, **headers) for each in (names, NOWHERE))
        assert refusal(there) == (401, "UNAUTHENTICATED")
        assert there.headers["www-authenticate"] == "Bearer"
        assert (there.status_code, there.text) == (none.status_code, none.text)


def shape(answer: httpx2.Response, names: dict[str, str]) -> Any:
    """Status, body and headers of an answer, with what the caller sent replaced by its kind."""
    text = answer.text
    for kind, value in sorted(names.items(), key=lambda item: -len(item[1])):
        if len(value) > 2 or kind == "key_id":
            text = re.sub(rf"\b{re.escape(value)}\b", f"<{kind}>", text)
    return answer.status_code, text, sorted(set(answer.headers) - {"content-length"})


@every_hidden_row
@pytest.mark.parametrize("role", ROLES)
def test_objects_of_other_projects_are_answered_like_unknown_ones(
    world: World, names: dict[str, str], row: Row, role: str
) -> None:
    """Whether or not the request is a good one."""
    stranger = world.strangers[role]
    theirs, none = ask(stranger, row, names), ask(stranger, row, NOWHERE)
    # An object that only the caller's own project could have is refused before it is looked for, and so is
    # some that a key which only sends asks for.
    if (row.unseen == "KEY_NOT_FOUND" and role != "admin") or (
        role == "record" and theirs.status_code == 403
    ):
        assert refusal(theirs) == (403, "FORBIDDEN")
    else:
        assert refusal(theirs) == (404, row.unseen)
    assert shape(theirs, names) == shape(none, NOWHERE)
    bad, bad_of_none = (ask(stranger, row._replace(body="{"), each) for each in (names, NOWHERE))
    assert shape(bad, names) == shape(bad_of_none, NOWHERE)
    assert bad.status_code == (404 if role == "admin" else theirs.status_code)


@pytest.mark.parametrize(
    "row",
    [row for row in HIDDEN if "{slug}" in row.path and row[:2] != ("PUT", MANAGED)],
    ids=lambda row: f"{row.method} {row.path}",
)
def test_an_unknown_object_is_not_found_before_it_is_forbidden(
    world: World, names: dict[str, str], row: Row
) -> None:
    answer = ask(world.callers["read"], row, names | {"slug": "no-such-flow"})
    assert refusal(answer) == (404, "FLOW_NOT_FOUND")


def test_lists_have_only_objects_of_the_callers_project(world: World) -> None:
    stranger = world.strangers["admin"]
    nothing: dict[str, Any] = {"runs": [], "nextCursor": None, "lastChange": 0}
    assert stranger.get("/flow-runs").json() == nothing
    assert [flow["slug"] for flow in stranger.get("/flows").json()["flows"]] == ["anything"]
    theirs = {flow["id"] for flow in stranger.get("/flows").json()["flows"]}
    ours = {flow["id"] for flow in world.callers["read"].get("/flows").json()["flows"]}
    assert theirs.isdisjoint(ours)
    assert all(stranger.get("/flow-runs", params={"flow_id": each}).json() == nothing for each in ours)
    admin = world.callers["admin"]
    for path, members in (("/keys", "keys"), ("/audit", "entries")):
        own = {each["id"] for each in stranger.get(path).json()[members]}
        assert own
        assert own.isdisjoint(each["id"] for each in admin.get(path).json()[members])
    # A cursor is a place in the one order of all projects, and shows nothing of the others.
    cursor = admin.get("/audit?limit=1").json()["nextCursor"]
    page = stranger.get(f"/audit?cursor={cursor}").json()["entries"]
    assert {entry["project"] for entry in page} == {"acme/strangers"}


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
        elif path in TAKES_SPANS:
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
