"""`serve` as a process: ready when it says so, keys made beside it, a folder of flows that it follows."""

import json
import socket
import sys
from pathlib import Path

import pytest

from runglass.cli.backends.flow_backend import FlowFolder
from runglass.cli.exit_codes import Exit
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from tests.e2e.command import runglass, started
from tests.e2e.conftest import Printed

FLOW = """\
slug: greet
steps:
  - {id: say, type: llm, model: echo, prompt: "ONE {{ message }}"}
"""


def _said(printed: Printed, *arguments: str) -> object:
    return json.loads(printed("run", "acme/shop/greet", "-m", "you", *arguments).out)["text"]


def test_serve_publishes_its_folder_and_what_changes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    data, flows = tmp_path / "data", tmp_path / "flows"
    file = flows / "acme" / "shop" / "greet.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(FLOW)
    (flows / "misplaced.yaml").write_text(FLOW)

    with started("serve", "--port", "0", "--data", data, "--flows", flows) as server:
        ready, url = server.line().split()
        assert ready == "ready"
        server.line_of_stderr_with("misplaced.yaml", "is not published")
        server.line_of_stderr_with(f"RUNGLASS_BASE_URL={url} runglass runs list")
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
        (file.parent / "other.json").write_text(
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of a project, in one of flows."""
    folder = tmp_path / "flows" / "acme" / "shop"
    folder.mkdir(parents=True)
    return folder


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


async def test_a_file_of_the_folder_is_checked_in_a_process_with_a_limit_of_time(
    tmp_path: Path, folder: Path
) -> None:
    (folder / "greet.yaml").write_text(
        "slug: greet\nsteps:\n" + "".join(f"  - {{id: s{n}, type: passthrough}}\n" for n in range(1_000))
    )
    reports: list[str] = []
    async with open_runtime(Settings(data=tmp_path, flow_check_time_limit_ms=1)) as runtime:
        await FlowFolder(tmp_path / "flows", runtime, report=reports.append).scan()
    (refused,) = reports
    assert "greet.yaml is not published" in refused
    assert "setting flow_check_time_limit_ms" in refused


async def test_a_folder_publishes_no_flow_with_a_model_that_is_not_among_the_project_s(
    tmp_path: Path, folder: Path
) -> None:
    (folder / "greet.yaml").write_text(FLOW.replace("echo", "'local:big'"))
    reports: list[str] = []
    async with open_runtime(Settings(data=tmp_path)) as runtime:
        project = await runtime.store.ensure_project("acme", "shop")
        await runtime.store.set_allowed_models(project.id, ["openai:*"])
        await FlowFolder(tmp_path / "flows", runtime, report=reports.append).scan()
        assert await runtime.store.flows(project.id) == []
    (refused,) = reports
    assert "not among the models of the project" in refused


def test_serve_starts_where_kubernetes_has_a_service_of_its_name(tmp_path: Path) -> None:
    link = "tcp://10.96.0.17:8080"
    env = {"RUNGLASS_SERVICE_HOST": "10.96.0.17", "RUNGLASS_PORT": link, "RUNGLASS_PORT_8080_TCP": link}
    with started(
        "serve", "--data", tmp_path / "data", "--port", "0", env=env | {"RUNGLASS_PROT": "1"}
    ) as server:
        assert server.line().startswith("ready ")
        said = server.line_of_stderr_with("warning: environment variable RUNGLASS_PORT is ignored")
        assert "Kubernetes" in said
        assert "did you mean RUNGLASS_PORT?" in server.line_of_stderr_with("RUNGLASS_PROT")


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
