"""`serve` as a process: ready when it says so, keys made beside it, a folder of flows that it follows.

With `--open`, and by `runglass open`, links that sign a browser in, once, on this machine; and a server that
has few file descriptors, and more connections than that.
"""

import contextlib
import json
import select
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from runglass.cli.backends.flow_backend import FlowFolder
from runglass.cli.commands.serve import is_this_machine
from runglass.cli.exit_codes import Exit
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.testing import RunningServer
from tests.contract.wire import ANYTHING, execute, until_health
from tests.e2e.command import WAIT_S, in_shell, runglass, started
from tests.e2e.conftest import Printed
from tests.servers import server_with

FLOW = """\
slug: greet
steps:
  - {id: say, type: llm, model: echo, prompt: "ONE {{ message }}"}
"""


server = server_with(ANYTHING)


def _said(printed: Printed, *arguments: str) -> object:
    return json.loads(printed("run", "acme/shop/greet", "-m", "you", *arguments).out)["text"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of a project, in one of flows."""
    folder = tmp_path / "flows" / "acme" / "shop"
    folder.mkdir(parents=True)
    return folder


def test_serve_publishes_its_folder_and_what_changes_in_it(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    data, flows, file = tmp_path / "data", tmp_path / "flows", folder / "greet.yaml"
    file.write_text(FLOW)
    (flows / "misplaced.yaml").write_text(FLOW)

    # As Kubernetes sets it for a service of that name.
    env = {"RUNGLASS_PORT": "tcp://10.96.0.17:8080"}
    with started("serve", "--port", "0", "--data", data, "--flows", flows, "--open", env=env) as server:
        ready, url = server.line().split()
        assert ready == "ready"
        server.line_of_stderr_with("warning: environment variable RUNGLASS_PORT is ignored")
        server.line_of_stderr_with("misplaced.yaml", "is not published")
        server.line_of_stderr_with(f"RUNGLASS_BASE_URL={url} runglass runs list")
        server.line_of_stderr_with("there is no key yet")
        key = printed("keys", "create", "--create", "acme/shop", "--data", data).out
        monkeypatch.setenv("RUNGLASS_API_KEY", key.strip())
        monkeypatch.setenv("RUNGLASS_BASE_URL", url)
        assert _said(printed) == "ONE you"

        file.write_text(FLOW.replace("ONE", "TWO"))
        server.line_of_stderr_with("acme/shop/greet", "version 2")
        assert _said(printed) == "TWO you"

        file.write_text(FLOW.replace("type: llm", "type: lmm"))
        server.line_of_stderr_with("greet.yaml", "what was published before stays")
        server.line_of_stderr_with("greet.yaml:3:")
        assert _said(printed) == "TWO you"

        file.unlink()
        (folder / "other.json").write_text(
            json.dumps({"slug": "other", "steps": [{"id": "keep", "type": "passthrough"}]})
        )
        server.line_of_stderr_with("acme/shop/other", "version 1")
        assert _said(printed) == "TWO you"
        assert _said(printed, "--version", "1") == "ONE you"

        printed("keys", "revoke", "acme/shop", "1", "--data", str(data))
        printed("runs", "list", code=Exit.DENIED)
        assert server.interrupt() == Exit.OK


def test_serve_says_why_it_cannot_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = runglass("serve", "--port", port, "--data", tmp_path)
        assert done.returncode == Exit.FAILED
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    done = runglass("serve", "--data", tmp_path, "--flows", tmp_path / "none")
    assert done.returncode == Exit.USAGE
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_folder_publishes_each_flow_from_one_file_and_an_unchanged_one_not_again(
    tmp_path: Path, folder: Path
) -> None:
    (folder / "first.yaml").write_text(FLOW)
    (folder / "second.yml").write_text(FLOW)
    reports: list[str] = []
    async with open_runtime(Settings(data=tmp_path)) as runtime:
        flows = FlowFolder(tmp_path / "flows", runtime, report=reports.append)
        await flows.scan()
        await flows.scan()
        published, refused = reports
        assert published == "flows: acme/shop/greet is published as version 1"
        assert "first.yaml already" in refused

        (folder / "first.yaml").write_text(FLOW.replace("greet", "hello"))
        await flows.scan()
        assert reports[2:] == [
            f"flows: acme/shop/{slug} is published as version 1" for slug in ("hello", "greet")
        ]
        (folder / "third.yaml").write_text(FLOW)
        await flows.scan()
        assert "second.yml already" in reports[4]

        (folder / "second.yml").unlink()
        await flows.scan()
        assert reports[5:] == ["flows: acme/shop/greet is published as version 1"]


LONG = "slug: greet\nsteps:\n" + "".join(f"  - {{id: s{n}, type: passthrough}}\n" for n in range(1_000))


@pytest.mark.parametrize(
    ("flow", "limit_ms", "says"),
    [
        pytest.param(LONG, 1, "setting flow_check_time_limit_ms", id="long"),
        pytest.param(FLOW.replace("echo", "'local:big'"), 60_000, "not among the models of", id="model"),
    ],
)
async def test_a_folder_publishes_no_flow_that_takes_long_to_check_or_has_a_model_of_no_list(
    tmp_path: Path, folder: Path, flow: str, limit_ms: int, says: str
) -> None:
    (folder / "greet.yaml").write_text(flow)
    reports: list[str] = []
    async with open_runtime(Settings(data=tmp_path, flow_check_time_limit_ms=limit_ms)) as runtime:
        project = await runtime.store.ensure_project("acme", "shop")
        await runtime.store.set_allowed_models(project.id, ["openai:*"])
        await FlowFolder(tmp_path / "flows", runtime, report=reports.append).scan()
        assert await runtime.store.flows(project.id) == []
    (refused,) = reports
    assert "greet.yaml is not published" in refused
    assert says in refused


def test_with_a_log_of_json_each_line_is_an_object_and_has_no_last_words_of_the_sandbox(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    (folder / "count.yaml").write_text("slug: count\nsteps: [{id: one, type: code, code: return 1}]\n")
    data = ("--data", tmp_path / "data", "--flows", tmp_path / "flows")
    # Python in place of the sandbox: it does not know the arguments, says so at length, and ends.
    env = {"MONTY_BIN": sys.executable}
    with started("serve", "--port", "0", "--log-format", "json", *data, env=env) as server:
        url = server.line().removeprefix("ready ")
        monkeypatch.setenv("RUNGLASS_BASE_URL", url)
        key = printed("keys", "create", "--create", "acme/shop", "--data", tmp_path / "data").out
        monkeypatch.setenv("RUNGLASS_API_KEY", key.strip())
        printed("run", "acme/shop/count", code=Exit.FAILED)
        assert server.interrupt() == Exit.OK
        told = [json.loads(line)["message"] for line in server.rest_of_stderr()]
    assert "flows: acme/shop/count is published as version 1" in told
    assert any(line.startswith(f"look at its runs in a browser at {url}/") for line in told)
    assert any("code died: monty worker crashed" in line and len(line) < 200 for line in told)


def signed_in(link: str) -> tuple[str, str]:
    """The page that a link leads a browser to, and the role that it has there."""
    with httpx2.Client(timeout=WAIT_S) as browser:
        page, _, proof = browser.get(link).headers["location"].partition("#proof=")
        me = browser.get(httpx2.URL(link).join("/api/v1/viewer/me"), headers={"X-Viewer-Proof": proof}).json()
        return page, me["role"]


def test_open_prints_a_link_that_signs_in_and_leads_to_the_run(
    server: RunningServer, http: httpx2.Client, connected: None, printed: Printed
) -> None:
    run_id = execute(http, "anything")
    for arguments, page in (
        ((), "/"),
        (("last",), f"/runs/{run_id}"),
        ((run_id[-8:], "--print"), f"/runs/{run_id}"),
    ):
        link = printed("open", *arguments).out.strip()
        assert link.startswith(f"{server.address}/viewer/ticket/")
        assert signed_in(link) == (page, "admin")


def test_a_ticket_is_asked_for_on_this_machine_alone() -> None:
    here = ["localhost", "127.0.0.1", "::1", "runs.localhost"]
    assert list(filter(is_this_machine, [*here, "10.0.0.1", "localhost.example", ""])) == here


def test_serve_prints_a_link_for_each_project_with_a_key(tmp_path: Path, printed: Printed) -> None:
    for role in ("read", "admin", "run"):
        printed("keys", "create", "--create", "acme/shop", "--role", role, "--data", tmp_path / "data")
    with started("serve", "--port", "0", "--data", tmp_path / "data", "--open") as server:
        url = server.line().removeprefix("ready ")
        link = server.line_of_stderr_with("look at acme/shop in a browser").split()[-1]
        assert link.startswith(f"{url}/viewer/ticket/")
        assert signed_in(link) == ("/", "admin")
        assert server.interrupt() == Exit.OK


def test_open_serves_a_folder_until_ctrl_c(tmp_path: Path, alone: None, printed: Printed) -> None:
    (tmp_path / "keep.yaml").write_text(ANYTHING)
    at = ["--data", str(tmp_path / "here")]
    printed("flow", "push", "keep.yaml", "--to", "acme/shop", "--create", "--publish", *at)
    printed("keys", "create", "acme/shop", *at)
    printed("run", "anything", "-m", "hello", *at)
    with started("open", "last", "--print", *at) as server:
        assert server.line().startswith("ready http://127.0.0.1:")
        page, role = signed_in(server.line_of_stderr_with("look at acme/shop in a browser").split()[-1])
        assert (page.startswith("/runs/01"), role) == (True, "admin")
        assert server.interrupt() == Exit.OK


FEW = in_shell("ulimit -Sn 100 && ulimit -Hn 256 &&")


def lease_of(data: Path) -> str:
    with closing(sqlite3.connect(data / "runglass.db", timeout=WAIT_S)) as database:
        ((expires_at,),) = database.execute("SELECT expires_at FROM lease")
        return str(expires_at)


def test_half_open_connections_take_no_descriptor_that_the_server_needs(tmp_path: Path) -> None:
    data, env = tmp_path / "data", {"RUNGLASS_LEASE_S": "3", "RUNGLASS_HEAD_TIME_LIMIT_S": "600"}
    serve = ("serve", "--port", "0", "--data", data, "--synchronous", "NORMAL")
    with started(*serve, env=env, inside=FEW) as server, contextlib.ExitStack() as stack:
        url = server.line().split()[1]
        host, port = url.removeprefix("http://").split(":")

        def open_half() -> socket.socket:
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
            connection.sendall(b"GET /health HTTP/1.1\r\nX:")
            return connection

        halves = [open_half() for _ in range(140)]
        until_health(url, "ok")
        # More than the limit that the process began with: it was raised to what the system allows.
        assert not select.select(halves, [], [], 0)[0]
        halves += [open_half() for _ in range(120)]
        before = lease_of(data)
        while lease_of(data) == before:
            halves.append(open_half())
            until_health(url, "ok")
        assert select.select(halves[:1], [], [], WAIT_S)[0]
        server.terminate()
