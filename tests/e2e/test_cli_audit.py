"""`runglass audit`: what was changed from the terminal and over HTTP, in one list."""

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from runglass.testing import running_server
from tests.contract.wire import http_for
from tests.e2e.conftest import Printed

USER = pwd.getpwuid(os.getuid()).pw_name


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(autouse=True)
def _name(monkeypatch: pytest.MonkeyPatch) -> None:
    # What anybody may set does not say who it was.
    monkeypatch.setenv("LOGNAME", "somebody-else")


def entries(printed: Printed, *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(printed("audit", *arguments, "--data", "here", "--json").out))


def test_each_command_that_changes_something_is_told(printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text("slug: greet\nsteps: [{id: keep, type: passthrough}]\n")
    for command in (
        ["projects", "create", "acme/shop", "--capture", "off"],
        ["projects", "budget", "acme/shop", "5.25"],
        ["projects", "retention", "acme/shop", "--days", "30"],
        ["projects", "retention", "acme/shop"],
        ["flow", "push", "flow.yaml", "--to", "acme/shop", "--publish"],
        ["keys", "create", "--create", "acme/shop", "--role", "read"],
        ["keys", "revoke", "acme/shop", "1"],
        ["keys", "create", "--create", "acme/other"],
    ):
        printed(*command, "--data", "here")
    told = entries(printed, "acme/shop")
    assert [entry["action"] for entry in reversed(told)] == [
        "project.created",
        "project.capture",
        "project.budget",
        "project.retention",
        "flow.pushed",
        "flow.published",
        "key.created",
        "key.revoked",
    ]
    actor = {"kind": "cli", "name": USER, "keyId": None, "address": "local"}
    assert [entry["actor"] for entry in told] == [actor] * 8
    assert {entry["project"] for entry in entries(printed)} == {"acme/shop", "acme/other"}
    assert [entry["action"] for entry in entries(printed, "--action", "key.revoked")] == ["key.revoked"]
    assert len(entries(printed, "--limit", "3")) == 3
    assert entries(printed, "--since", "2999-01-01") == []
    assert len(entries(printed, "--since", "1h")) == 10


def test_the_list_reads_beside_a_running_server(printed: Printed, tmp_path: Path) -> None:
    with running_server(data=tmp_path / "here") as server, http_for(server, server.key) as http:
        assert http.post("/keys", json={"role": "run"}).status_code == 201
        shown = printed("audit", "acme/demo", "--limit", "1", "--data", "here")
    head, line = shown.out.splitlines()
    assert head.split()[:2] == ["at", "project"]
    assert all(
        part in line for part in ("acme/demo", "key 1 (nk_live_", "127.0.0.1", "key.created", "key 2 (")
    )
    assert "--limit shows more" in shown.err
