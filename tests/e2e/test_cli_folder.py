"""A data folder that a command opens itself, also beside a server: flows are run and runs are looked at.

Flows and projects are managed there, and the log of changes tells of it.
"""

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from runglass import APITimeoutError
from runglass.cli.argument_parsers import ProjectName
from runglass.cli.backends.local_server import in_process
from runglass.cli.exit_codes import Exit
from runglass.config.settings import Settings
from tests.collector import collecting
from tests.contract.wire import BROKEN, ENDLESS, start, until_event
from tests.e2e.command import runglass, started
from tests.e2e.conftest import Printed
from tests.servers import served

GREET = "slug: greet\nsteps: [{id: say, type: code, code: \"return {'said': message}\"}]\n"
NAME = "acme/shop/greet"


@pytest.fixture(autouse=True)
def _greet(alone: None, tmp_path: Path) -> None:
    (tmp_path / "greet.yaml").write_text(GREET)


@pytest.fixture
def here(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> Printed:
    """Runs a command on the data folder `here`, over which a key in the environment does not win."""
    monkeypatch.setenv("RUNGLASS_API_KEY", "nk_unused")
    monkeypatch.setenv("RUNGLASS_BASE_URL", "http://127.0.0.1:9/api/v1")
    return lambda *arguments, **ends: printed(*arguments, "--data", "here", **ends)


@pytest.fixture
def pushed(here: Printed) -> Printed:
    """The same; `greet` is in project `acme/shop` there."""
    here("flow", "push", "greet.yaml", "--to", "acme/shop", "--create")
    return here


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


def test_a_failed_run_tells_its_caller_why_though_its_log_keeps_no_words(here: Printed) -> None:
    flow = "slug: mute\ncapture: off\nsteps: [{id: a, type: code, code: 'raise ValueError(\"no price\")'}]\n"
    Path("mute.yaml").write_text(flow)
    here("flow", "push", "mute.yaml", "--to", "acme/shop", "--create")
    assert "no price" in here("run", "mute", code=Exit.FAILED).err
    assert "no price" not in here("runs", "show", "last").out


def test_a_flow_is_run_and_its_run_is_looked_at_without_a_server(pushed: Printed) -> None:
    ran = pushed("run", "greet", "-m", "hello", "--trace")
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
        assert shown in pushed(*command).out
    # What is said to be done next finds the folder again.
    err = pushed("runs", "show", run_id, "--slowest", "1").err
    assert f"runglass runs step {run_id} --data here STEP" in err
    pushed("runs", "delete", run_id, "--yes")
    pushed("runs", "show", run_id, code=Exit.NOT_FOUND)


def test_what_is_deleted_without_a_server_is_in_no_file_afterwards(here: Printed) -> None:
    """Nor the message of the error, which has an index."""
    Path("broken.yaml").write_text(BROKEN.replace('"it broke"', "message"))
    here("flow", "push", "broken.yaml", "--to", "acme/shop", "--create")
    here("run", "broken", "-m", "sesame", code=Exit.FAILED)
    assert [file.name for file in Path("here").iterdir() if b"sesame" in file.read_bytes()] == ["runglass.db"]
    here("runs", "delete", "last", "--yes")
    assert not any(b"sesame" in file.read_bytes() for file in Path("here").iterdir())


def test_a_slug_is_of_the_one_project_and_a_mistyped_one_is_told_its_neighbour(pushed: Printed) -> None:
    assert pushed("flow", "list").out.splitlines()[1].startswith("acme/shop/greet  draft only")
    for command in (["run", "gret"], ["flow", "publish", "gret"], ["runs", "list", "--flow", "gret"]):
        assert "did you mean 'greet'?" in pushed(*command, code=Exit.NOT_FOUND).err
    pushed("projects", "create", "acme/other")
    for command in (["runs", "list"], ["flow", "list"]):
        err = pushed(*command, code=Exit.USAGE).err
        assert "there are 2 projects (acme/other, acme/shop): say which" in err
    pushed("flow", "list", "acme/other")
    pushed("runs", "list", "--project", "acme/other")


def test_runs_are_run_again_without_a_server(here: Printed) -> None:
    Path("broken.yaml").write_text(BROKEN)
    here("flow", "push", "greet.yaml", "broken.yaml", "--to", "acme/shop", "--create", "--publish")
    here("run", "greet", "-m", "hello", "--trace")
    here("runs", "rerun", "last")
    here("runs", "rerun", "flow:greet", "--yes")
    here("run", "broken", code=Exit.FAILED)
    here("runs", "rerun", "last", code=Exit.FAILED)
    listed = json.loads(here("runs", "list", "--json").out)["runs"]
    assert [run["status"] for run in listed] == [*2 * ["failed"], *3 * ["completed"]]
    assert json.loads(here("runs", "show", listed[2]["id"], "--json").out)["flowRun"]["result"] == {
        "said": "hello"
    }


def test_a_wait_that_times_out_keeps_nobody_from_leaving_the_folder(tmp_path: Path, here: Printed) -> None:
    (tmp_path / "endless.yaml").write_text(ENDLESS)
    here("flow", "push", "endless.yaml", "--to", "acme/shop", "--create")
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
    tmp_path: Path, here: Printed
) -> None:
    with served(ENDLESS, data=tmp_path / "here", lease_s=0.5) as (server, http):
        run = start(server, "endless")
        until_event(http, run, "step_started")
        for status in ("running", "cancelled"):
            (listed,) = json.loads(here("runs", "list", "--json").out)["runs"]
            assert (listed["id"], listed["status"]) == (run, status)
            if status == "running":
                here("flow", "push", "greet.yaml", "--to", "acme/demo")
                assert "another process runs flows" in here("run", "greet", code=Exit.FAILED).err
                (process,) = json.loads(here("processes", "--json").out)
                assert process["runs"] == 1
                # The process that has the run ends it.
                here("runs", "cancel", run)
        error = http.get(f"/flow-runs/{run}").json()["error"]
        assert error["message"].startswith("cancelled by the user ")
        assert http.delete(f"/flow-runs/{run}?purge=true").status_code == 202
        shown = here("audit", "acme/demo", "--limit", "1")
        head, line = shown.out.splitlines()
        assert head.split()[:2] == ["at", "project"]
        for part in ("acme/demo", "key 1 (nk_live_", "127.0.0.1", "run.purged", run):
            assert part in line
        assert "--limit shows more" in shown.err
        # That of the server: the key with which a command asks itself is on no disk.
        assert len(json.loads(here("keys", "list", "acme/demo", "--json").out)) == 1


def test_push_publish_show_and_rollback(here: Printed, tmp_path: Path) -> None:
    file = tmp_path / "greet.yaml"
    push = ["flow", "push", "greet.yaml", "--to", "acme/shop", "--create"]
    for number in (1, 2):
        file.write_text(f"name: Greeting {number}\n{GREET}")
        assert here(*push, "--publish").out == f"{NAME}  version {number}\n"
    file.write_text(f"name: Not yet\n{GREET}")
    assert here(*push).out == f"{NAME}  draft\n"
    assert here("flow", "rollback", NAME, "1").out == f"{NAME}  version 1\n"

    flow = json.loads(here("flow", "show", NAME, "--json").out)
    assert (flow["org"], flow["project"], flow["slug"], flow["name"]) == ("acme", "shop", "greet", "Not yet")
    assert (flow["productionVersion"], [each["version"] for each in flow["versions"]]) == (1, [0, 1, 2])
    (listed,) = json.loads(here("flow", "list", "acme/shop", "--json").out)
    assert flow == listed | {"versions": flow["versions"]}

    lines = here("flow", "show", NAME).out.splitlines()
    assert lines[0] == f"{NAME}  Not yet"
    assert [line.split()[0] for line in lines[2:]] == ["draft", "version", "version"]
    assert [line.endswith("in production") for line in lines[2:]] == [False, True, False]
    for version, name in (("draft", "Not yet"), ("production", "Greeting 1"), ("2", "Greeting 2")):
        assert json.loads(here("flow", "show", NAME, "--version", version).out)["name"] == name

    assert here("flow", "publish", NAME).out == f"{NAME}  version 3\n"
    here("flow", "rollback", NAME, "0", code=Exit.USAGE)
    for missing in (["show", NAME, "--version", "7"], ["rollback", NAME, "7"], ["list", "acme/other"]):
        assert here("flow", *missing, code=Exit.NOT_FOUND).err.startswith("error: ")


def test_a_flow_is_stored_as_its_file_was_read(here: Printed, tmp_path: Path) -> None:
    prompt, key = "a \u2028 b\x85  c\x7f \U0001f600", "k" * 1_100
    file = f"slug: greet\nsteps:\n- id: say\n  type: llm\n  model: echo\n  prompt: {json.dumps(prompt)}\n"
    file += f"  output_schema:\n    type: object\n    properties:\n      ? {key}\n      : {{}}\n"
    (tmp_path / "greet.yaml").write_text(file.replace("\x7f", "\\x7f"))
    here("flow", "push", "greet.yaml", "--to", "acme/shop", "--create")
    (step,) = json.loads(here("flow", "show", NAME, "--version", "draft").out)["steps"]
    assert (step["prompt"], list(step["output_schema"]["properties"])) == (prompt, [key])


def test_no_project_is_made_on_a_server_and_one_without_a_key_is_not_taken_for_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed: Printed
) -> None:
    monkeypatch.setenv("RUNGLASS_BASE_URL", "http://127.0.0.1:9")
    push = ["flow", "push", "greet.yaml", "--to", "acme/demo"]
    err = printed(*push, "--create", "--api-key", "nk_a", code=Exit.USAGE).err
    assert "--create is for a data folder" in err
    for command in (push, ["flow", "list", "acme/demo"]):
        assert "RUNGLASS_API_KEY" in printed(*command, code=Exit.USAGE).err
    assert [file.name for file in tmp_path.iterdir()] == ["greet.yaml"]


AS_IT_SAYS = "as the server says"
SETTINGS = {
    "budget": [
        ("", "no budget, spent $0"),
        ("5.00", "budget $5, spent $0"),
        ("8999999.999999999999", "budget $8999999.999999999999, spent $0"),
        ("0", "budget $0, spent $0; nothing more can be run"),
        ("none", "no budget, spent $0"),
        ("0.000000000001", "budget $0.000000000001, spent $0"),
    ],
    "models": [
        ("", "no list of models"),
        ("openai:* local:tiny", "openai:*, local:tiny"),
        ("default", "no list of models"),
        ("openai:*", "openai:*"),
    ],
    "retention": [
        ("", f"runs are kept {AS_IT_SAYS}, their content {AS_IT_SAYS}"),
        ("--days 30", f"runs are kept 30 days, their content {AS_IT_SAYS}"),
        ("--content-days 0.5", "runs are kept 30 days, their content 0.5 days"),
        ("--days default", f"runs are kept {AS_IT_SAYS}, their content 0.5 days"),
    ],
}
"""The changes of each, and what is shown then; where there are no words, it is only shown."""


def test_what_a_project_may_and_keeps_is_set_shown_and_lifted_and_its_changes_are_logged(
    here: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What anybody may set does not say who it was.
    monkeypatch.setenv("LOGNAME", "somebody-else")
    create = ["projects", "create", "acme/shop"]
    here(*create, "--capture", "metadata_only", "--capture-sample", "1")
    here(*create, "--capture", "default", "--capture-sample", "default", "--capture-failed", "redacted")
    assert here("projects", "list").out.splitlines()[1].split() == ["acme/shop", "–", "redacted", "–"]
    here(*create, "--capture", "off")
    here(*create, "--capture-sample", "0.05")
    changes = ["project.created", *4 * ["project.capture"]]
    for name, rows in SETTINGS.items():
        for given, told in rows:
            assert here("projects", name, "acme/shop", *given.split()).out == f"acme/shop  {told}\n"
            changes += [f"project.{name}"] if given else []
    shop = {"org": "acme", "project": "shop"}
    capture = {"capture": "off", "captureFailed": "redacted", "captureSample": 0.05}
    assert json.loads(here("projects", "list", "--json").out) == [shop | capture]
    assert [json.loads(here("projects", name, "acme/shop", "--json").out) for name in SETTINGS] == [
        shop | {"budgetUsd": "0.000000000001", "spentUsd": "0", "reservedUsd": "0", "isSpent": False},
        shop | {"allowedModels": ["openai:*"]},
        shop | {"retentionDays": None, "contentRetentionDays": 0.5},
    ]

    here("flow", "push", "greet.yaml", "--to", "acme/shop", "--publish")
    here("keys", "create", "acme/shop", "--role", "read")
    here("keys", "revoke", "acme/shop", "1")
    here("keys", "create", "--create", "acme/other")
    changes += ["flow.pushed", "flow.published", "key.created", "key.revoked"]
    logged = entries(here, "acme/shop")
    assert [entry["action"] for entry in reversed(logged)] == changes
    user = pwd.getpwuid(os.getuid()).pw_name
    actor = {"kind": "cli", "name": user, "keyId": None, "address": "local"}
    assert all(entry["actor"] == actor for entry in logged)
    assert {entry["project"] for entry in entries(here)} == {"acme/shop", "acme/other"}
    assert [entry["action"] for entry in entries(here, "--action", "key.revoked")] == ["key.revoked"]
    assert len(entries(here, "--limit", "3")) == 3
    assert entries(here, "--since", "2999-01-01") == []
    assert len(entries(here, "--since", "1h", "--action", "key.created")) == 2


def entries(here: Printed, *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(here("audit", *arguments, "--json").out))
