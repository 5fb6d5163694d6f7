"""Flows over HTTP: push, list, read, publish, roll back and forward."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from runglass.testing import RunningServer
from tests.contract.stores import server_on
from tests.contract.wire import ANYTHING, UUID, detail, http_for, refusal
from tests.waiting import eventually

NAMED = """
slug: shop-sign  # kept for people
name: "Sign {0}"
steps:
  - {{id: show, type: code, code: 'return {{"text": "{0}"}}'}}
"""
SIGN = "/flows/acme/signs/shop-sign"


@pytest.fixture
def signs(server: RunningServer) -> Iterator[httpx2.Client]:
    """An admin of project `acme/signs`, where flow `shop-sign` has draft 3 and published versions 1 and 2."""
    with http_for(server, server.make_key("acme", "signs")) as http:
        for number in (1, 2):
            assert push(http, NAMED.format(number)).status_code == 200
            http.post(f"{SIGN}/publish")
        push(http, NAMED.format(3))
        http.put(f"{SIGN}/production", json={"version": 2})
        yield http


def push(http: httpx2.Client, text: str, path: str = SIGN) -> httpx2.Response:
    return http.put(path, content=text.encode())


def test_a_pushed_flow_is_the_draft_and_production_stays_as_it_is(signs: httpx2.Client) -> None:
    before = signs.get(SIGN).json()
    pushed = push(signs, NAMED.format("four")).json()
    assert UUID.fullmatch(pushed["id"])
    assert pushed == {
        "id": before["id"],
        "slug": "shop-sign",
        "name": "Sign four",
        "capture": None,
        "productionVersion": 2,
        "updatedAt": pushed["updatedAt"],
    }
    assert pushed["updatedAt"].endswith("Z")
    assert signs.get(f"{SIGN}/versions/0").json()["name"] == "Sign four"
    assert signs.get(f"{SIGN}/versions/2").json()["name"] == "Sign 2"


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def test_a_nul_is_refused_in_names_and_kept_in_content(kind: str) -> None:
    step = {"id": "keep", "type": "passthrough"}
    tree = {"slug": "nul", "steps": [step]}
    names = {"name": tree | {"name": "a\0b"}, "steps[0].name": tree | {"steps": [step | {"name": "a\0b"}]}}
    with server_on(kind, capture="full") as server, http_for(server, server.key) as http:
        for path, named in names.items():
            answer = http.put("/flows/acme/demo/nul", json=named)
            assert refusal(answer) == (422, "INVALID_REQUEST")
            assert [each["path"] for each in detail(answer)["problems"]] == [path]
        assert http.put("/flows/acme/demo/nul", json=tree).status_code == 200
        content = {"a\0": ["\0b"], "message": "\0"}
        answer = http.post("/seq/acme/demo/nul/execute", json={"parameters": content})
        assert answer.json()["result"] == content
        run_id = answer.json()["executionId"]
        (row,) = http.get(f"/flow-runs/{run_id}/trace").json()["steps"]
        assert row["inputContext"] == row["outputContext"] == content
        file = http.get(f"/flow-runs/{run_id}/export?format=jsonl").content
        forged = file.replace(b'"slug":"nul","steps"', b'"slug":"nul","name":"a\\u0000b","steps"').replace(
            run_id.encode(), b"01a216ae-3af3-75ae-86e9-2b635727f90f"
        )
        assert b"u0000b" in forged.split(b"\n")[0]
        # The flow that is there keeps its name; where it is new, the name counts.
        known = http.get("/flows").json()["flows"][0]["id"]
        for flow_id, status in (("01a216ae-3aa8-730f-a3af-cb1a6577fac3", 422), (known, 201)):
            moved = forged.replace(known.encode(), flow_id.encode())
            answer = http.post("/flow-runs/import", content=moved)
            assert answer.status_code == status, answer.text


def test_the_list_has_the_projects_flows_and_its_name(signs: httpx2.Client) -> None:
    push(signs, ANYTHING, "/flows/acme/signs/anything")
    listed = signs.get("/flows/acme/signs").json()
    assert (listed["org"], listed["project"]) == ("acme", "signs")
    assert [each["slug"] for each in listed["flows"]] == ["anything", "shop-sign"]
    assert listed["flows"][0]["productionVersion"] is None
    assert signs.get("/flows").json() == listed
    assert signs.get(SIGN).json().items() >= listed["flows"][1].items()


def test_rolling_back_and_forward_changes_what_runs(signs: httpx2.Client) -> None:
    for version in (1, 2):
        moved = signs.put(f"{SIGN}/production", json={"version": version}).json()
        assert moved["productionVersion"] == version
        answer = signs.post("/seq/acme/signs/shop-sign/execute", json={})
        assert answer.json()["result"] == {"text": f"{version}"}


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        (0, (400, "INVALID_VERSION")),
        (2**64, (404, "VERSION_NOT_FOUND")),
        (True, (422, "INVALID_REQUEST")),
        (None, (422, "INVALID_REQUEST")),
    ],
)
def test_only_a_published_version_can_be_in_production(
    signs: httpx2.Client, version: Any, refused: tuple[int, str]
) -> None:
    answer = signs.put(f"{SIGN}/production", json={"version": version})
    assert refusal(answer) == refused
    if refused[0] == 422:
        assert "`version`" in detail(answer)["message"]
    elif version:
        assert refusal(signs.get(f"{SIGN}/versions/{version}")) == refused
    assert signs.get(SIGN).json()["productionVersion"] == 2


def test_a_body_that_is_much_larger_than_its_fields_is_not_read(signs: httpx2.Client) -> None:
    for method, path in (("PUT", f"{SIGN}/production"), ("POST", "/keys")):
        answer = signs.request(method, path, content=b"[" + b"[]," * 10_000 + b"[]]")
        assert refusal(answer, "16,384 bytes") == (413, "REQUEST_TOO_LARGE")


def test_a_bad_file_is_refused_with_every_mistake_in_its_place(signs: httpx2.Client) -> None:
    bad = "slug: shop-sign\nsteps:\n  - {id: a, type: passthrugh}\n  - {id: b, type: wait}\n"
    answer = push(signs, bad + "".join(f"  - {{id: c{n}, type: no}}\n" for n in range(3)))
    assert refusal(answer) == (422, "INVALID_REQUEST")
    problems = detail(answer)["problems"]
    assert len(problems) == 5
    assert all(set(problem) == {"message", "path", "line", "column"} for problem in problems)
    assert (problems[0]["path"], problems[0]["line"]) == ("steps[0].type", 3)
    message = detail(answer)["message"]
    assert problems[0]["message"] in message
    assert "line 3: " in message
    assert message.endswith("; and 2 more, see `problems`")
    assert signs.get(f"{SIGN}/versions/0").json()["name"] != "passthrugh"


def test_the_slug_in_the_file_must_be_the_one_in_the_path(signs: httpx2.Client) -> None:
    answer = push(signs, NAMED.format(1), "/flows/acme/signs/other")
    assert refusal(answer) == (422, "INVALID_REQUEST")
    (problem,) = detail(answer)["problems"]
    assert problem["path"] == "slug"
    assert "'other'" in problem["message"]
    assert refusal(signs.get("/flows/acme/signs/other")) == (404, "FLOW_NOT_FOUND")


def test_a_push_is_answered_with_warnings(http: httpx2.Client) -> None:
    text = """slug: warned
inputs: {type: object, require: [x]}
steps:
  - {id: a, type: llm, model: "bedrock:nova", prompt: hi}
"""
    answer = http.put("/flows/acme/demo/warned", content=text)
    assert answer.status_code == 200
    warnings = answer.json()["warnings"]
    assert [(warning["path"], warning["line"]) for warning in warnings] == [
        ("inputs.require", 2),
        ("steps[0].model", 4),
    ]
    plain = http.put("/flows/acme/demo/plain", content="slug: plain\nsteps: [{id: a, type: passthrough}]\n")
    assert "warnings" not in plain.json()


def test_a_deleted_flow_is_gone_and_its_runs_are_read(server: RunningServer, signs: httpx2.Client) -> None:
    run = signs.post("/seq/acme/signs/shop-sign/execute", json={}).json()["executionId"]
    push(signs, "slug: slow\nsteps: [{id: hold, type: wait, ms: 600000}]\n", "/flows/acme/signs/slow")
    job = signs.post("/seq/acme/signs/slow/jobs", json={}).json()["executionId"]
    answer = signs.delete("/flows/acme/signs/slow")
    assert refusal(answer) == (409, "FLOW_IN_USE")
    assert detail(answer)["runs"] == 1
    assert "--runs" in detail(answer)["message"]
    assert signs.delete(f"/flow-runs/{job}?purge=true").status_code == 202
    assert signs.delete("/flows/acme/signs/slow").status_code == 204

    before = {part: signs.get(f"/flow-runs/{run}{part}").json() for part in ("", "/trace", "/trace/outline")}
    calls = [f"/seq/acme/signs/shop-sign/{call}" for call in ("execute", "jobs", "step")]
    calls.append(f"/flow-runs/{run}/rerun")
    first = [signs.post(path, json={}, headers={"Idempotency-Key": path}) for path in calls]
    eventually(lambda: signs.delete(SIGN).status_code == 204)
    runs = signs.get("/flow-runs").json()["runs"]
    for method, path in (("GET", SIGN), ("DELETE", SIGN), ("POST", "/seq/acme/signs/shop-sign/execute")):
        assert refusal(signs.request(method, path)) == (404, "FLOW_NOT_FOUND")
    again = [signs.post(path, json={}, headers={"Idempotency-Key": path}) for path in calls]
    assert [(each.status_code, each.content) for each in again] == [
        (each.status_code, each.content) for each in first
    ], "what was called before is told, and not run"
    for path in calls:
        new = signs.post(path, json={}, headers={"Idempotency-Key": f"{path} new"})
        assert refusal(new) == (404, "FLOW_NOT_FOUND")
    assert signs.get("/flow-runs").json()["runs"] == runs
    assert "shop-sign" not in [each["slug"] for each in signs.get("/flows").json()["flows"]]
    pushed = push(signs, NAMED.format("other")).json()
    assert signs.get(f"{SIGN}/versions/0").headers["X-Flow-Id"] == pushed["id"] != before[""]["flowId"]
    assert {part: signs.get(f"/flow-runs/{run}{part}").json() for part in before} == before
    assert refusal(signs.post(f"/flow-runs/{run}/rerun", json={})) == (404, "FLOW_NOT_FOUND")
    file = signs.get(f"/flow-runs/{run}/export").content
    assert signs.delete(f"/flow-runs/{run}?purge=true").status_code == 202
    assert signs.post("/flow-runs/import", content=file).json()["id"] == run
    assert signs.get("/flow-runs?flow=shop-sign").json()["runs"] == []
