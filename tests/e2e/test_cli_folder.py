"""A data folder that a command opens itself: flows are run and runs are looked at, also beside a server."""

import json
from pathlib import Path

import pytest

from runglass import APITimeoutError, Client
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends.local_server import in_process
from runglass.cli.exit_codes import Exit
from runglass.config.settings import Settings
from runglass.testing import running_server
from tests.collector import collecting
from tests.e2e.command import runglass, started
from tests.e2e.conftest import Printed

GREET = "slug: greet\nsteps: [{id: say, type: code, code: \"return {'said': message}\"}]\n"
BAD = "slug: bad\nsteps: [{id: bad, type: code, code: 'raise ValueError()'}]\n"
ENDLESS = "slug: endless\nsteps: [{id: rest, type: wait, ms: 600000}]\n"


@pytest.fixture(autouse=True)
def _greet(alone: None, tmp_path: Path) -> None:
    (tmp_path / "greet.yaml").write_text(GREET)


def test_without_a_key_a_command_names_the_data_folder_that_is_there(printed: Printed) -> None:
    assert "data folder" not in printed("runs", "list", code=Exit.DENIED).err
    printed("projects", "create", "acme/shop", "--data", "runglass-data")
    assert "needs no key: --data runglass-data" in printed("runs", "list", code=Exit.DENIED).err


def test_a_project_is_made_only_where_the_command_says_so(printed: Printed) -> None:
    commands = (
        ["flow", "push", "greet.yaml", "--to", "acme/new", "--data", "here"],
        ["keys", "create", "acme/newer", "--data", "here"],
    )
    for command in commands:
        assert "there is no database" in printed(*command, code=Exit.NOT_FOUND).err
    assert not Path("here").exists()
    printed("projects", "create", "acme/shop", "--data", "here")
    for command in commands:
        assert "does not exist; add --create to make it" in printed(*command, code=Exit.NOT_FOUND).err
        printed(*command, "--create")
    listed = json.loads(printed("projects", "list", "--data", "here", "--json").out)
    assert [each["project"] for each in listed] == ["new", "newer", "shop"]


def test_no_project_is_made_on_a_server(printed: Printed) -> None:
    at = ["--api-key", "nk_a", "--base-url", "http://127.0.0.1:9"]
    err = printed("flow", "push", "greet.yaml", "--to", "acme/new", "--create", *at, code=Exit.USAGE).err
    assert "--create is for a data folder" in err


def test_a_failed_run_tells_its_caller_why_though_its_log_keeps_no_words(printed: Printed) -> None:
    flow = "slug: mute\ncapture: off\nsteps: [{id: a, type: code, code: 'raise ValueError(\"no price\")'}]\n"
    Path("mute.yaml").write_text(flow)
    at = ["--data", "here"]
    printed("flow", "push", "mute.yaml", "--to", "acme/shop", "--create", *at)
    assert "no price" in printed("run", "mute", *at, code=Exit.FAILED).err
    assert "no price" not in printed("runs", "show", "last", *at).out


def test_a_flow_is_run_and_its_run_is_looked_at_without_a_server(printed: Printed) -> None:
    at = ["--data", "here"]
    printed("flow", "push", "greet.yaml", "--to", "acme/shop", "--create", *at)
    ran = printed("run", "greet", "-m", "hello", "--trace", *at)
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
        assert shown in printed(*command, *at).out
    # What is said to be done next finds the folder again.
    err = printed("runs", "show", run_id, "--slowest", "1", *at).err
    assert f"runglass runs step {run_id} --data here STEP" in err
    printed("runs", "delete", run_id, "--yes", *at)
    printed("runs", "show", run_id, *at, code=Exit.NOT_FOUND)


def test_what_is_deleted_without_a_server_is_in_no_file_afterwards(printed: Printed) -> None:
    """Nor the message of the error, which has an index."""
    at = ["--data", "here"]
    Path("bad.yaml").write_text(BAD.replace("ValueError()", "ValueError(message)"))
    printed("flow", "push", "bad.yaml", "--to", "acme/shop", "--create", *at)
    printed("run", "bad", "-m", "sesame", *at, code=Exit.FAILED)
    assert [file.name for file in Path("here").iterdir() if b"sesame" in file.read_bytes()] == ["runglass.db"]
    printed("runs", "delete", "last", "--yes", *at)
    assert not any(b"sesame" in file.read_bytes() for file in Path("here").iterdir())


def test_a_slug_is_of_the_one_project_and_a_mistyped_one_is_told_its_neighbour(printed: Printed) -> None:
    at = ["--data", "here"]
    printed("flow", "push", "greet.yaml", "--to", "acme/shop", "--create", *at)
    assert printed("flow", "list", *at).out.splitlines()[1].startswith("acme/shop/greet  draft only")
    for command in (["run", "gret"], ["flow", "publish", "gret"], ["runs", "list", "--flow", "gret"]):
        assert "did you mean 'greet'?" in printed(*command, *at, code=Exit.NOT_FOUND).err
    printed("projects", "create", "acme/other", *at)
    for command in (["runs", "list"], ["flow", "list"]):
        err = printed(*command, *at, code=Exit.USAGE).err
        assert "there are 2 projects (acme/other, acme/shop): say which" in err
    printed("flow", "list", "acme/other", *at)
    printed("runs", "list", "--project", "acme/other", *at)


def test_runs_are_run_again_without_a_server(printed: Printed) -> None:
    def ran(*arguments: str, code: Exit = Exit.OK) -> str:
        return printed(*arguments, "--data", "here", code=code).out

    Path("bad.yaml").write_text(BAD)
    ran("flow", "push", "greet.yaml", "bad.yaml", "--to", "acme/shop", "--create", "--publish")
    ran("run", "greet", "-m", "hello", "--trace")
    again = ran("runs", "rerun", "last").strip()
    shown = json.loads(ran("runs", "show", again, "--json"))["flowRun"]
    assert (shown["status"], shown["result"]) == ("completed", {"said": "hello"})
    assert ran("runs", "rerun", "flow:greet").startswith("1 run would be started")
    told = json.loads(ran("runs", "rerun", "flow:greet", "--yes", "--json"))
    (again,) = told["started"].values()
    assert json.loads(ran("runs", "show", again, "--json"))["flowRun"]["status"] == "completed"
    ran("run", "bad", code=Exit.FAILED)
    ran("runs", "rerun", "last", code=Exit.FAILED)
    listed = json.loads(ran("runs", "list", "flow:bad", "--json"))["runs"]
    assert [run["status"] for run in listed] == ["failed", "failed"]


def test_a_wait_that_times_out_keeps_nobody_from_leaving_the_folder(tmp_path: Path, printed: Printed) -> None:
    (tmp_path / "endless.yaml").write_text(ENDLESS)
    printed("flow", "push", "endless.yaml", "--to", "acme/shop", "--create", "--data", "here")
    with in_process(Settings(data=Path("here")), ProjectName("acme", "shop"), executes=True) as client:
        job = client.flow("acme/shop/endless").execute_async(message="hello")
        with pytest.raises(APITimeoutError):
            job.run.wait(timeout=0.1)


def test_a_run_without_a_server_is_sent_as_spans_by_the_next_server(tmp_path: Path) -> None:
    data = tmp_path / "here"
    at = ("--data", data)
    with collecting() as collector:
        env = {"RUNGLASS_OTLP_ENDPOINT": collector.endpoint}
        push = ("flow", "push", "greet.yaml", "--to", "acme/shop", "--create", "--publish")
        assert runglass(*push, *at, cwd=tmp_path).returncode == Exit.OK
        ran = runglass("run", "greet", "-m", "hello", *at, env=env)
        assert ran.returncode == Exit.OK
        with started("serve", "--port", "0", *at, env=env) as server:
            collector.wait_for(1)
            assert server.interrupt() == Exit.OK
        names = [span.name for span in collector.spans(ran.stderr.splitlines()[0].removeprefix("run "))]
    assert names[0] == "invoke_workflow greet"


def test_beside_a_server_a_command_looks_and_manages_and_takes_over_nothing(
    tmp_path: Path, printed: Printed
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
                (listed,) = json.loads(printed("runs", "list", "--json", *at).out)["runs"]
                assert (listed["id"], listed["status"]) == (run, status)
                if status == "running":
                    printed("flow", "push", "greet.yaml", "--to", "acme/demo", *at)
                    assert "another process runs flows" in printed("run", "greet", *at, code=Exit.FAILED).err
                    (process,) = json.loads(printed("processes", "--json", *at).out)
                    assert process["runs"] == 1
                    # The process that has the run ends it.
                    printed("runs", "cancel", run, *at)
            error = client.run(run).summary().error
            assert error is not None
            assert (error.message or "").startswith("cancelled by the user ")
        # That of the server: the key with which a command asks itself is on no disk.
        assert len(json.loads(printed("keys", "list", "acme/demo", "--json", *at).out)) == 1
