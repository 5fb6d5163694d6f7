"""A data folder that a command opens itself: flows are run and runs are looked at, also beside a server."""

import json
from pathlib import Path

import pytest

from runglass import Client
from runglass.cli import main
from runglass.cli.exit_codes import Exit
from runglass.testing import running_server

GREET = "slug: greet\nsteps: [{id: say, type: code, code: \"return {'said': message}\"}]\n"
ENDLESS = "slug: endless\nsteps: [{id: rest, type: wait, ms: 600000}]\n"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RUNGLASS_API_KEY", "RUNGLASS_BASE_URL", "RUNGLASS_DATA", "RUNGLASS_STORE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "greet.yaml").write_text(GREET)


def test_a_project_is_made_only_where_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    commands = (
        ["flow", "push", "greet.yaml", "--to", "acme/new", "--data", "here"],
        ["keys", "create", "acme/newer", "--data", "here"],
    )
    for command in commands:
        assert main(command) == Exit.NOT_FOUND
        assert "there is no database" in capsys.readouterr().err
    assert not Path("here").exists()
    assert main(["projects", "create", "acme/shop", "--data", "here"]) == Exit.OK
    for command in commands:
        capsys.readouterr()
        assert main(command) == Exit.NOT_FOUND
        assert "does not exist; add --create to make it" in capsys.readouterr().err
        assert main([*command, "--create"]) == Exit.OK
    assert main(["projects", "list", "--data", "here", "--json"]) == Exit.OK
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [each["project"] for each in listed] == ["new", "newer", "shop"]


def test_no_project_is_made_on_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--api-key", "nk_a", "--base-url", "http://127.0.0.1:9"]
    assert main(["flow", "push", "greet.yaml", "--to", "acme/new", "--create", *at]) == Exit.USAGE
    assert "--create is for a data folder" in capsys.readouterr().err


def test_a_flow_is_run_and_its_run_is_looked_at_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--data", "here"]
    assert main(["flow", "push", "greet.yaml", "--to", "acme/shop", "--create", *at]) == Exit.OK
    capsys.readouterr()
    assert main(["run", "greet", "-m", "hello", "--trace", *at]) == Exit.OK
    ran = capsys.readouterr()
    assert json.loads(ran.out) == {"said": "hello"}
    run_id = ran.err.splitlines()[0].removeprefix("run ")
    for command, shown in (
        (["runs", "list", "--flow", "greet", "--json"], run_id),
        (["runs", "show", "last"], "completed"),
        (["runs", "step", run_id[-8:], "say"], '"said": "hello"'),
        (["runs", "tail", run_id], "run completed"),
        (["runs", "export", run_id, "-o", "-"], run_id),
        (["flow", "show", "greet"], "acme/shop/greet"),
    ):
        assert main([*command, *at]) == Exit.OK, command
        assert shown in capsys.readouterr().out
    # What is said to be done next finds the folder again.
    assert main(["runs", "show", run_id, "--failed", *at]) == Exit.OK
    assert f"runglass runs step {run_id} --data here STEP" in capsys.readouterr().err
    assert main(["runs", "delete", run_id, "--yes", *at]) == Exit.OK
    assert main(["runs", "show", run_id, *at]) == Exit.NOT_FOUND


def test_a_slug_is_of_the_one_project_and_a_mistyped_one_is_told_its_neighbour(
    capsys: pytest.CaptureFixture[str],
) -> None:
    at = ["--data", "here"]
    assert main(["flow", "push", "greet.yaml", "--to", "acme/shop", "--create", *at]) == Exit.OK
    for command in (["run", "gret"], ["flow", "publish", "gret"], ["runs", "list", "--flow", "gret"]):
        capsys.readouterr()
        assert main([*command, *at]) == Exit.NOT_FOUND
        assert "did you mean 'greet'?" in capsys.readouterr().err
    assert main(["projects", "create", "acme/other", *at]) == Exit.OK
    capsys.readouterr()
    assert main(["runs", "list", *at]) == Exit.USAGE
    assert "there are 2 projects" in capsys.readouterr().err
    assert main(["runs", "list", "--project", "acme/other", *at]) == Exit.OK


def test_beside_a_server_a_command_looks_and_manages_and_takes_over_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--data", "here"]
    with running_server(data=tmp_path / "here", lease_s=0.5) as server:
        server.push(ENDLESS)
        with Client(server.key, base_url=server.base_url) as client:
            run = client.flow("acme/demo/endless").execute_async().execution_id
            for event in client.run(run).live_trace():
                if event.event_type == "step_started":
                    break
            for status in ("running", "cancelled"):
                capsys.readouterr()
                assert main(["runs", "list", "--json", *at]) == Exit.OK
                (listed,) = json.loads(capsys.readouterr().out)["runs"]
                assert (listed["id"], listed["status"]) == (run, status)
                if status == "running":
                    assert main(["flow", "push", "greet.yaml", "--to", "acme/demo", *at]) == Exit.OK
                    assert main(["run", "greet", *at]) == Exit.FAILED
                    assert "another process runs flows" in capsys.readouterr().err
                    assert main(["processes", "--json", *at]) == Exit.OK
                    (process,) = json.loads(capsys.readouterr().out)
                    assert process["runs"] == 1
                    # The process that has the run ends it.
                    assert main(["runs", "cancel", run, *at]) == Exit.OK
        assert main(["keys", "list", "acme/demo", "--json", *at]) == Exit.OK
        # That of the server: the key with which a command asks itself is on no disk.
        assert len(json.loads(capsys.readouterr().out.splitlines()[-1])) == 1
