"""Keys over HTTP: make, list and revoke those of the caller's own project."""

import re
from collections.abc import Iterator

import httpx2
import pytest

from runglass.testing import RunningServer
from runglass.wire.admin_api import ROLES
from tests.contract.wire import http_for, refusal


@pytest.fixture
def admin(server: RunningServer) -> Iterator[httpx2.Client]:
    with http_for(server, server.make_key("acme", "keys")) as http:
        yield http


def test_a_new_key_is_shown_once_and_works(server: RunningServer, admin: httpx2.Client) -> None:
    for role in ROLES:
        answer = admin.post("/keys", json={"role": role})
        assert answer.status_code == 201
        made = answer.json()
        assert re.fullmatch(r"nk_live_[0-9a-f]{8}_[0-9a-f]{64}", made["key"])
        assert made["key"].rpartition("_")[0] == made["hint"]
        assert made == {
            "id": made["id"],
            "role": role,
            "hint": made["hint"],
            "createdAt": made["createdAt"],
            "revokedAt": None,
            "key": made["key"],
        }
        with http_for(server, made["key"]) as http:
            assert http.get("/keys").status_code == (200 if role == "admin" else 403)
        listed = admin.get("/keys")
        assert made["key"] not in listed.text
        assert {name: value for name, value in made.items() if name != "key"} in listed.json()["keys"]


def test_a_revoked_key_stops_and_stays_in_the_list(server: RunningServer, admin: httpx2.Client) -> None:
    made = admin.post("/keys", json={"role": "read"}).json()
    with http_for(server, made["key"]) as http:
        assert http.get("/flow-runs").status_code == 200
        revoked = admin.delete(f"/keys/{made['id']}").json()
        assert revoked["revokedAt"].endswith("Z")
        assert refusal(http.get("/flow-runs")) == (401, "UNAUTHENTICATED")
    assert admin.delete(f"/keys/{made['id']}").json() == revoked
    assert revoked in admin.get("/keys").json()["keys"]


def test_a_key_cannot_revoke_itself(admin: httpx2.Client) -> None:
    own = admin.get("/keys").json()["keys"][-1]
    assert refusal(admin.delete(f"/keys/{own['id']}")) == (403, "FORBIDDEN")
    assert admin.get("/keys").status_code == 200


@pytest.mark.parametrize("body", [b"{}", b'{"role": "king"}', b'{"role": "read", "rol": 1}'])
def test_a_bad_body_makes_no_key(admin: httpx2.Client, body: bytes) -> None:
    before = admin.get("/keys").json()
    assert refusal(admin.post("/keys", content=body)) == (422, "INVALID_REQUEST")
    assert admin.get("/keys").json() == before
