"""Flows and keys over HTTP: push, publish, roll back and forward; make and revoke; list them, in pages.

And the audit log: who changed what in the caller's project, and from where.
"""

import asyncio
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import httpx2
import pytest

from runglass import Client
from runglass.client.api.admin import Management
from runglass.testing import RunningServer
from runglass.wire.admin_api import ROLES
from tests.contract.wire import ANYTHING, UUID, detail, http_for, pages, read, refusal, trace_of
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
    at = pushed.pop("updatedAt")
    named = {"id": before["id"], "slug": "shop-sign", "name": "Sign four"}
    assert pushed == named | {"capture": None, "productionVersion": 2}
    assert UUID.fullmatch(before["id"])
    assert at.endswith("Z")
    assert signs.get(f"{SIGN}/versions/0").json()["name"] == "Sign four"
    assert signs.get(f"{SIGN}/versions/2").json()["name"] == "Sign 2"


def test_a_nul_is_refused_in_names_and_kept_in_content(http: httpx2.Client) -> None:
    step = {"id": "keep", "type": "passthrough"}
    tree = {"slug": "nul", "steps": [step]}
    names = {"name": tree | {"name": "a\0b"}, "steps[0].name": tree | {"steps": [step | {"name": "a\0b"}]}}
    for path, named in names.items():
        answer = http.put("/flows/acme/demo/nul", json=named)
        assert refusal(answer) == (422, "INVALID_REQUEST")
        assert [each["path"] for each in detail(answer)["problems"]] == [path]
    pushed = http.put("/flows/acme/demo/nul", json=tree)
    assert pushed.status_code == 200
    content = {"a\0": ["\0b"], "message": "\0"}
    answer = http.post("/seq/acme/demo/nul/execute", json={"parameters": content})
    assert answer.json()["result"] == content
    run_id = answer.json()["executionId"]
    (row,) = trace_of(http, run_id)["steps"]
    assert row["inputContext"] == row["outputContext"] == content
    file = http.get(f"/flow-runs/{run_id}/export?format=jsonl").content
    named_so = file.replace(b'"slug":"nul","steps"', b'"slug":"nul","name":"a\\u0000b","steps"')
    forged = named_so.replace(run_id.encode(), b"01a216ae-3af3-75ae-86e9-2b635727f90f")
    assert b"u0000b" in forged.split(b"\n")[0]
    # The flow that is there keeps its name; where it is new, the name counts.
    known = pushed.json()["id"]
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


def test_only_a_published_version_can_be_in_production(signs: httpx2.Client) -> None:
    def put(version: Any) -> httpx2.Response:
        return signs.put(f"{SIGN}/production", json={"version": version})

    assert refusal(put(0)) == (400, "INVALID_VERSION")
    for unknown in (put(2**64), signs.get(f"{SIGN}/versions/{2**64}")):
        assert refusal(unknown) == (404, "VERSION_NOT_FOUND")
    for bad in (True, None):
        assert refusal(put(bad), "`version`") == (422, "INVALID_REQUEST")
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
    assert [problems[0][name] for name in ("path", "line", "column")] == ["steps[0].type", 3, 19]
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
    answer = push(http, text, "/flows/acme/demo/warned")
    assert answer.status_code == 200
    places = [(warning["path"], warning["line"]) for warning in answer.json()["warnings"]]
    assert places == [("inputs.require", 2), ("steps[0].model", 4)]
    assert "warnings" not in push(http, ANYTHING, "/flows/acme/demo/anything").json()


def test_a_deleted_flow_is_gone_and_its_runs_are_read(signs: httpx2.Client) -> None:
    run = signs.post("/seq/acme/signs/shop-sign/execute", json={}).json()["executionId"]
    push(signs, "slug: slow\nsteps: [{id: hold, type: wait, ms: 600000}]\n", "/flows/acme/signs/slow")
    job = signs.post("/seq/acme/signs/slow/jobs", json={}).json()["executionId"]
    answer = signs.delete("/flows/acme/signs/slow")
    assert refusal(answer, "--runs") == (409, "FLOW_IN_USE")
    assert detail(answer)["runs"] == 1
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
    assert (run, "shop-sign") in [(each["id"], each["flowSlug"]) for each in runs]
    assert "shop-sign" not in [each["slug"] for each in signs.get("/flows").json()["flows"]]
    pushed = push(signs, NAMED.format("other")).json()
    assert signs.get(f"{SIGN}/versions/0").headers["X-Flow-Id"] == pushed["id"] != before[""]["flowId"]
    assert {part: signs.get(f"/flow-runs/{run}{part}").json() for part in before} == before
    assert refusal(signs.post(f"/flow-runs/{run}/rerun", json={})) == (404, "FLOW_NOT_FOUND")
    file = signs.get(f"/flow-runs/{run}/export").content
    assert signs.delete(f"/flow-runs/{run}?purge=true").status_code == 202
    assert signs.post("/flow-runs/import", content=file).json()["id"] == run
    assert signs.get("/flow-runs?flow=shop-sign").json()["runs"] == []


@pytest.fixture
def admin(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """An admin of a project of the test's own."""
    with http_for(server, server.make_key("acme", request.function.__name__)) as http:
        yield http


def test_a_new_key_is_shown_once_and_works_until_it_is_revoked(
    server: RunningServer, admin: httpx2.Client
) -> None:
    for role in ROLES:
        answer = admin.post("/keys", json={"role": role})
        assert answer.status_code == 201
        made = answer.json()
        key = made.pop("key")
        assert re.fullmatch(r"nk_live_[0-9a-f]{8}_[0-9a-f]{64}", key)
        assert set(made) == {"id", "role", "hint", "createdAt", "revokedAt"}
        assert (made["role"], made["hint"], made["revokedAt"]) == (role, key.rpartition("_")[0], None)
        listed = admin.get("/keys")
        assert key not in listed.text
        assert made in listed.json()["keys"]
        with http_for(server, key) as http:
            assert http.get("/keys").status_code == (200 if role == "admin" else 403)
            revoked = admin.delete(f"/keys/{made['id']}").json()
            assert refusal(http.get("/keys")) == (401, "UNAUTHENTICATED")
        assert revoked["revokedAt"].endswith("Z")
        assert revoked == made | {"revokedAt": revoked["revokedAt"]}
        assert admin.delete(f"/keys/{made['id']}").json() == revoked
        assert revoked in admin.get("/keys").json()["keys"], "it stays in the list"


def test_a_key_cannot_revoke_itself(admin: httpx2.Client) -> None:
    own = admin.get("/keys").json()["keys"][-1]
    assert refusal(admin.delete(f"/keys/{own['id']}")) == (403, "FORBIDDEN")
    assert admin.get("/keys").status_code == 200


@pytest.mark.parametrize("body", [b"{}", b'{"role": "king"}', b'{"role": "read", "rol": 1}'])
def test_a_bad_body_makes_no_key(admin: httpx2.Client, body: bytes) -> None:
    before = admin.get("/keys").json()
    assert refusal(admin.post("/keys", content=body)) == (422, "INVALID_REQUEST")
    assert admin.get("/keys").json() == before


BOUND = 1000
"""So many members one answer holds."""
LISTS = {
    "/flows": ("flows", "slug"),
    "/flows/acme/many": ("flows", "slug"),
    "/flows/acme/many/versions": ("versions", "version"),
    "/keys": ("keys", "id"),
}


@pytest.fixture(scope="module")
def many(server: RunningServer) -> Iterator[httpx2.Client]:
    """An admin of a project with more keys and flows than one answer holds, and a flow of four versions."""

    async def fill() -> None:
        store = server.runtime.store
        project = await store.ensure_project("acme", "many")
        for number in range(3):
            source = b'{"slug":"versions","steps":[],"name":"%d"}' % number
            flow = await store.put_draft(project.id, "versions", name=None, capture=None, source=source)
            await store.publish(flow.id)
        for first in range(0, BOUND, 20):
            # Few at once: on a busy machine a call waits for a connection not as long as all of them take.
            async with asyncio.TaskGroup() as group:
                for number in range(first, first + 20):
                    put = store.put_draft(project.id, f"f{number:04}", name=None, capture=None, source=b"{}")
                    group.create_task(put)
                    group.create_task(store.add_key(project.id, "read", b"%d" % number, "nk_x"))

    server.call(fill())
    with http_for(server, server.make_key("acme", "many")) as http:
        yield http


def walked(http: httpx2.Client, path: str, **query: Any) -> list[list[Any]]:
    """The identities of the members of each page."""
    members, name = LISTS[path]
    return [[each[name] for each in page[members]] for page in pages(http, path, **query)]


@pytest.mark.parametrize("path", LISTS)
def test_pages_of_any_size_put_together_are_the_list(many: httpx2.Client, path: str) -> None:
    in_full = [*chain(*walked(many, path))]
    size = 3 if path.endswith("versions") else 400
    found = walked(many, path, limit=size)
    assert len(found) > 1
    assert {len(page) for page in found[:-1]} == {size}
    assert [*chain(*found)] == in_full
    assert len(walked(many, path, limit=min(len(in_full), BOUND))) == (1 if len(in_full) <= BOUND else 2)


def test_our_client_fetches_all_of_it(server: RunningServer, many: httpx2.Client) -> None:
    key = many.headers["Authorization"].removeprefix("Bearer ")
    with Client(key, base_url=server.base_url) as client:
        manage = Management(client)
        listed = manage.flows("acme", "many")
        assert (len(listed.flows), listed.next_cursor) == (BOUND + 1, None)
        assert manage.own_flows() == listed
        versions = manage.flow("acme", "many", "versions").versions
        assert [each.version for each in versions] == [0, 1, 2, 3]


SECRET = "nothing of a flow or a run is told"
FORGED = {"X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7", "X-Real-IP": "10.9.8.7"}


def entries(admin: httpx2.Client, **query: Any) -> list[dict[str, Any]]:
    return list(read(admin, "/audit", **query)["entries"])


def test_each_change_is_logged_once_with_its_actor_and_address(admin: httpx2.Client) -> None:
    flow = f"slug: anything\nsteps: [{{id: keep, type: passthrough, name: {SECRET!r}}}]\n"
    project, own = admin.get("/flows").json()["project"], admin.get("/keys").json()["keys"][-1]
    path = f"/flows/acme/{project}/anything"
    assert admin.put(path, content=flow.encode()).status_code == 200
    assert admin.put(path, content=flow.encode()).status_code == 200
    assert admin.post(f"{path}/publish").json() == {"version": 1}
    assert admin.post(f"{path}/publish").json() == {"version": 1}
    assert admin.put(path, content=ANYTHING.encode()).status_code == 200
    assert admin.post(f"{path}/publish").json() == {"version": 2}
    assert admin.put(f"{path}/production", json={"version": 1}).status_code == 200
    made = admin.post("/keys", json={"role": "read"}, headers=FORGED).json()
    for _ in range(2):
        assert admin.delete(f"/keys/{made['id']}").status_code == 200
    body = {"parameters": {"x": SECRET}}
    run = admin.post(f"/seq/acme/{project}/anything/execute", json=body).json()
    assert admin.delete(f"/flow-runs/{run['executionId']}?purge=true").status_code == 202

    told = entries(admin)
    key = f"key {made['id']} ({made['hint']})"
    assert [(entry["action"], entry["subject"]) for entry in told] == [
        ("run.purged", run["executionId"]),
        ("key.revoked", key),
        ("key.created", key),
        ("flow.production", "anything"),
        ("flow.published", "anything"),
        ("flow.pushed", "anything"),
        ("flow.published", "anything"),
        ("flow.pushed", "anything"),
        ("key.created", f"key {own['id']} ({own['hint']})"),
        ("project.created", f"acme/{project}"),
    ]
    actor = {"kind": "key", "name": own["hint"], "keyId": own["id"], "address": "127.0.0.1"}
    assert [entry["actor"] for entry in told[:8]] == [actor] * 8
    assert {entry["project"] for entry in told} == {f"acme/{project}"}
    assert told[3]["details"] == {"before": 2, "after": 1}
    assert told[1]["details"] == {"role": "read"}
    assert told[5]["details"]["sha256"] != told[7]["details"]["sha256"]
    assert told[7]["details"]["before"] is None
    text = admin.get("/audit").text
    assert SECRET not in text
    assert made["key"] not in text


def test_pages_and_filters_select_entries(admin: httpx2.Client) -> None:
    made = [admin.post("/keys", json={"role": "read"}).json()["id"] for _ in range(5)]
    admin.delete(f"/keys/{made[0]}")
    everything = entries(admin)
    assert len(everything) == 8
    listed, query = list[dict[str, Any]](), dict[str, Any](limit=3)
    for size in (3, 3, 2):
        page = admin.get("/audit", params=query).json()
        assert len(page["entries"]) == size
        listed += page["entries"]
        query = {"limit": 3, "cursor": page["nextCursor"]}
    assert (listed, query["cursor"]) == (everything, None)
    assert [entry["action"] for entry in entries(admin, action="key.revoked")] == ["key.revoked"]
    assert entries(admin, since=everything[0]["at"])[0] == everything[0]
    assert entries(admin, since="9999-12-31T23:59:59-01:00") == []
