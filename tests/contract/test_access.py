"""Keys, projects and roles: who may see and do what, and what the others learn, which is nothing."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import pytest

from runglass.store.keys import digest_of
from runglass.testing import RunningServer
from tests.contract.wire import ANYTHING, UUID, detail, execute, http_for, refusal

PROTECTED = [
    ("GET", "/flow-runs"),
    ("GET", "/flow-runs/x/trace"),
    ("GET", "/flow-runs/x/trace/stream"),
    ("GET", "/flow-runs/x/diff/y"),
    ("GET", "/flow-runs/x/steps/a/trace"),
    ("GET", "/seq/acme/demo/words/runs/x/trace"),
    ("GET", "/seq/acme/demo/words/runs/x/trace/stream"),
    ("GET", "/seq/acme/demo/words/runs/x/steps/a/trace"),
    ("POST", "/seq/acme/demo/words/execute"),
    ("POST", "/seq/acme/demo/words/v1/execute"),
    ("POST", "/seq/acme/demo/words/jobs"),
    ("GET", "/seq/acme/demo/words/jobs/x"),
    ("DELETE", "/seq/acme/demo/words/runs/x"),
    ("DELETE", "/flow-runs/x"),
    ("GET", "/seq/sessions/x"),
    ("GET", "/audit"),
    ("GET", "/"),
    ("GET", "/no/such/path"),
    ("DELETE", "/flow-runs"),
    ("HEAD", "/flow-runs"),
    ("OPTIONS", "/flow-runs"),
    ("GET", "/schemas/other.json"),
    ("GET", "/schemas/flow.json/more"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer nk_wrong", "Bearer other", "Basic {key}", "{key}", "Bearer {key}x"],
)
def test_nothing_is_open_without_a_good_key(
    server: RunningServer, nobody: httpx2.Client, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.format(key=server.key)}
    answer = nobody.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-request-id"]
    if method != "HEAD":
        assert detail(answer)["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "path",
    [
        "//api/v1/flow-runs",
        "/api//v1/flow-runs",
        "/api/v1//flow-runs/",
        "/%61pi/v1/flow-runs",
        "/api/v1",
        "/api/v1/",
    ],
)
def test_no_spelling_of_a_path_is_a_way_around_the_key(
    server: RunningServer, nobody: httpx2.Client, path: str
) -> None:
    assert nobody.get(f"{server.address}{path}").status_code == 401


def test_the_scheme_is_read_in_any_case(server: RunningServer, nobody: httpx2.Client) -> None:
    for scheme in ("bearer", "BEARER", "Bearer  "):
        headers = {"Authorization": f"{scheme} {server.key}"}
        assert nobody.get("/flow-runs", headers=headers).status_code == 200


def test_a_revoked_key_stops_at_once(server: RunningServer) -> None:
    key = server.make_key("acme", "demo")
    with http_for(server, key) as http:
        assert http.get("/flow-runs").status_code == 200

        async def revoke() -> bool:
            store = server.runtime.store
            found = await store.find_key(digest_of(key))
            assert found is not None
            return await store.revoke_key(found.project_id, found.id)

        assert server.call(revoke())
        assert refusal(http.get("/flow-runs")) == (401, "UNAUTHENTICATED")


def test_open_endpoints_need_no_key(server: RunningServer, nobody: httpx2.Client) -> None:
    for path in ("/health", "/ready", "/docs", "/docs/openapi.json", "/api/v1/schemas/flow.json"):
        assert nobody.get(f"{server.address}{path}").status_code == 200


class Neighbour(NamedTuple):
    """Another project with a flow of the same slug and a run of its own."""

    http: httpx2.Client
    run: str


@pytest.fixture(scope="module")
def neighbour(server: RunningServer) -> Iterator[Neighbour]:
    server.push(ANYTHING, org="acme", project="other")
    server.push(ANYTHING.replace("anything", "hidden"), org="acme", project="other")
    with http_for(server, server.make_key("acme", "other")) as http:
        answer = http.post("/seq/acme/other/hidden/execute", json={})
        yield Neighbour(http, answer.json()["executionId"])


def without_echo(answer: httpx2.Response, *echoed: str) -> Any:
    """Status, body and header names of an answer, with what the caller sent taken out."""
    text = answer.text
    for word in echoed:
        text = text.replace(word, "…")
    return answer.status_code, text, sorted(answer.headers)


@pytest.mark.parametrize("resource", ["trace", "steps/keep/trace", "steps/none/trace", "trace/stream"])
def test_a_run_of_another_project_is_answered_like_an_unknown_run(
    http: httpx2.Client, neighbour: Neighbour, resource: str
) -> None:
    assert neighbour.http.get(f"/flow-runs/{neighbour.run}/trace").status_code == 200
    unknown = "01900000-0000-7000-8000-000000000000"
    for form in ("/flow-runs/{}/", "/seq/acme/demo/anything/runs/{}/"):
        theirs = http.get(form.format(neighbour.run) + resource)
        none = http.get(form.format(unknown) + resource)
        assert refusal(theirs) == (404, "RUN_NOT_FOUND")
        assert without_echo(theirs, neighbour.run) == without_echo(none, unknown)


def test_a_flow_of_another_project_is_answered_like_an_unknown_flow(
    http: httpx2.Client, neighbour: Neighbour
) -> None:
    answers = [
        without_echo(http.post(f"/seq/{path}/execute", json={}), path.rpartition("/")[0], path.split("/")[2])
        for path in (
            "acme/other/hidden",
            "acme/other/nosuch",
            "acme/nowhere/hidden",
            "nobody/other/hidden",
            "acme/demo/hidden",
        )
    ]
    assert answers[0][0] == 404
    assert "FLOW_NOT_FOUND" in answers[0][1]
    assert answers == [answers[0]] * 5
    runs = [
        without_echo(
            http.get(f"/seq/{path}/runs/{neighbour.run}/trace"), path.rpartition("/")[0], path.split("/")[2]
        )
        for path in ("acme/other/hidden", "acme/other/nosuch", "nobody/nowhere/hidden")
    ]
    assert runs == [answers[0]] * 3


def test_not_even_a_bad_request_tells_that_another_projects_flow_exists(
    http: httpx2.Client, neighbour: Neighbour
) -> None:
    for content in (b"{", b'{"mesage": 1}', b"{}"):
        for slug in ("hidden", "nosuch"):
            answer = http.post(f"/seq/acme/other/{slug}/execute", content=content)
            assert refusal(answer) == (404, "FLOW_NOT_FOUND")


def test_a_list_has_the_runs_of_the_keys_project_alone(http: httpx2.Client, neighbour: Neighbour) -> None:
    own = execute(http, "anything")
    mine = [run["id"] for run in http.get("/flow-runs?limit=100").json()["runs"]]
    theirs = neighbour.http.get("/flow-runs").json()["runs"]
    assert own in mine
    assert [run["id"] for run in theirs] == [neighbour.run]
    assert neighbour.run not in mine
    filtered = http.get("/flow-runs", params={"flow_id": theirs[0]["flowId"]}).json()
    assert (filtered["runs"], filtered["nextCursor"]) == ([], None)


@pytest.mark.parametrize(("role", "status"), [("admin", 200), ("run", 200), ("read", 403)])
def test_a_reading_key_may_not_run_flows(server: RunningServer, role: str, status: int) -> None:
    with http_for(server, server.make_key("acme", "demo", role)) as http:
        answer = http.post("/seq/acme/demo/anything/execute", json={})
        assert answer.status_code == status
        assert http.post("/seq/acme/demo/anything/v1/execute", json={}).status_code == status
        assert http.get("/flow-runs").status_code == 200
        if status == 403:
            assert detail(answer)["code"] == "FORBIDDEN"
            # A flow that is not there is not forbidden but unknown.
            assert refusal(http.post("/seq/acme/demo/none/execute", json={})) == (404, "FLOW_NOT_FOUND")
            assert refusal(http.post("/seq/a/b/anything/execute", json={})) == (404, "FLOW_NOT_FOUND")


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


@pytest.mark.parametrize("path", ["/flow-runs%0A", "/keys/1%0A", "/%0A"])
def test_a_line_break_at_the_end_makes_another_path(http: httpx2.Client, path: str) -> None:
    assert refusal(http.get(path)) == (404, "NOT_FOUND")
