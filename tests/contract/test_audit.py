"""The audit log over HTTP: who changed what in the caller's project, and from where."""

from collections.abc import Iterator
from typing import Any

import pytest

from runglass.testing import RunningServer
from tests.contract.wire import ANYTHING, http_for, known_key

SECRET = "nothing of a flow or a run is told"
FORGED = {"X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7", "X-Real-IP": "10.9.8.7"}


class Admin:
    """A caller that may do everything in a project of its own."""

    def __init__(self, server: RunningServer, project: str) -> None:
        key = server.make_key("acme", project)
        found = known_key(server, key)
        self.key_id, self.hint = found.id, found.hint
        self.project = project
        self.http = http_for(server, key)

    def entries(self, **query: Any) -> list[dict[str, Any]]:
        answer = self.http.get("/audit", params=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["entries"])


@pytest.fixture
def admin(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Admin]:
    made = Admin(server, request.node.name)
    with made.http:
        yield made


def test_each_change_is_logged_once_with_its_actor_and_address(admin: Admin) -> None:
    flow = f"slug: anything\nsteps: [{{id: keep, type: passthrough, name: {SECRET!r}}}]\n"
    path = f"/flows/acme/{admin.project}/anything"
    assert admin.http.put(path, content=flow.encode()).status_code == 200
    assert admin.http.put(path, content=flow.encode()).status_code == 200
    assert admin.http.post(f"{path}/publish").json() == {"version": 1}
    assert admin.http.post(f"{path}/publish").json() == {"version": 1}
    assert admin.http.put(path, content=ANYTHING.encode()).status_code == 200
    assert admin.http.post(f"{path}/publish").json() == {"version": 2}
    assert admin.http.put(f"{path}/production", json={"version": 1}).status_code == 200
    made = admin.http.post("/keys", json={"role": "read"}, headers=FORGED).json()
    for _ in range(2):
        assert admin.http.delete(f"/keys/{made['id']}").status_code == 200
    body = {"parameters": {"x": SECRET}}
    run = admin.http.post(f"/seq/acme/{admin.project}/anything/execute", json=body).json()
    assert admin.http.delete(f"/flow-runs/{run['executionId']}?purge=true").status_code == 202

    told = admin.entries()
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
        ("key.created", f"key {admin.key_id} ({admin.hint})"),
        ("project.created", f"acme/{admin.project}"),
    ]
    actor = {"kind": "key", "name": admin.hint, "keyId": admin.key_id, "address": "127.0.0.1"}
    assert [entry["actor"] for entry in told[:8]] == [actor] * 8
    assert {entry["project"] for entry in told} == {f"acme/{admin.project}"}
    assert told[3]["details"] == {"before": 2, "after": 1}
    assert told[1]["details"] == {"role": "read"}
    assert told[5]["details"]["sha256"] != told[7]["details"]["sha256"]
    assert told[7]["details"]["before"] is None
    text = admin.http.get("/audit").text
    assert SECRET not in text
    assert made["key"] not in text


def test_pages_and_filters_select_entries(admin: Admin) -> None:
    made = [admin.http.post("/keys", json={"role": "read"}).json()["id"] for _ in range(5)]
    admin.http.delete(f"/keys/{made[0]}")
    everything = admin.entries()
    assert len(everything) == 8
    listed, query = list[dict[str, Any]](), dict[str, Any](limit=3)
    for size in (3, 3, 2):
        page = admin.http.get("/audit", params=query).json()
        assert len(page["entries"]) == size
        listed += page["entries"]
        query = {"limit": 3, "cursor": page["nextCursor"]}
    assert (listed, query["cursor"]) == (everything, None)
    assert [entry["action"] for entry in admin.entries(action="key.revoked")] == ["key.revoked"]
    assert admin.entries(since=everything[0]["at"])[0] == everything[0]
    assert admin.entries(since="9999-12-31T23:59:59-01:00") == []
