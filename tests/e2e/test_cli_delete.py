"""`runs delete`, `runs cancel`, `runs export` of a query and `flow delete`.

Each tells first, does what was named and nothing else, and says what it did.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runglass import Client
from runglass.cli.exit_codes import Exit
from runglass.errors import APIConnectionError
from tests.e2e.conftest import Command
from tests.servers import server_with

FLOWS = [
    "slug: one\nsteps: [{id: keep, type: passthrough}]\n",
    "slug: two\nsteps: [{id: keep, type: passthrough}]\n",
    "slug: bad\nsteps: [{id: bad, type: code, code: 'raise ValueError()'}]\n",
    "slug: slow\nsteps: [{id: hold, type: wait, ms: 600000}]\n",
]
UNKNOWN = "01900000-0000-7000-8000-000000000000"


server = server_with(*FLOWS, scope="function")


@pytest.fixture
def ask(command: Command) -> Command:
    return partial(command, "runs", "delete")


def ran(client: Client, slug: str) -> str:
    result = client.flow(slug).execute(parameters={})
    assert result.execution_id is not None
    return result.execution_id


def left(client: Client) -> set[str]:
    return {run.id for run in client.runs(limit=100).runs}


def test_named_runs_are_told_first_and_then_deleted(client: Client, ask: Command) -> None:
    old, new, other = (ran(client, "one") for _ in range(3))
    code, out, err = ask(new, old, new)
    assert code == Exit.OK
    lines = out.splitlines()
    assert lines[0] == "2 runs would be deleted"
    assert [line.split()[:2] for line in lines[1:]] == [["oldest", old], ["newest", new]]
    assert "nothing has been deleted: add --yes" in err
    assert left(client) == {old, new, other}

    assert ask(new, old, new, "--yes") == (Exit.OK, "deleted 2 runs\n", "")
    assert left(client) == {other}


def test_a_query_takes_runs_that_have_ended_unless_it_says_otherwise(client: Client, ask: Command) -> None:
    one, two = ran(client, "one"), ran(client, "two")
    going = client.flow("slow").execute_async().execution_id
    code, out, _ = ask("--flow", "one", "--json")
    told = json.loads(out)
    assert (code, told["count"], told["oldest"]["id"], told["newest"]) == (0, 1, one, told["oldest"])
    assert ask("--flow", "acme/demo/one", "--yes")[:2] == (Exit.OK, "deleted 1 run\n")
    assert left(client) == {two, going}
    assert json.loads(ask("--older-than", "0m", "--yes", "--json")[1]) == {"deleted": [two], "missing": []}
    assert left(client) == {going}
    assert ask("--flow", "slow", "--yes")[1] == "deleted 0 runs\n"
    assert ask("--status", "running", "--yes")[1] == "deleted 1 run\n"
    assert left(client) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [UNKNOWN, "--flow", "one"],
        ["--before", "yesterday"],
        ["--older-than", "30"],
        ["--older-than", "-1d"],
        ["status:failed", UNKNOWN],
        [" "],
    ],
)
def test_a_command_that_selects_no_runs_is_refused(ask: Command, arguments: list[str]) -> None:
    code, out, err = ask(*arguments, "--yes")
    assert (code, out) == (Exit.USAGE, "")
    assert err.startswith("error: ")


def test_runs_of_a_query_are_cancelled(client: Client, command: Command) -> None:
    ended = ran(client, "one")
    going = {client.flow("slow").execute_async().execution_id for _ in range(2)}
    code, out, err = command("runs", "cancel", "flow:one,slow status:running,pending,completed")
    assert (code, out) == (Exit.OK, "2 runs would be cancelled\n")
    assert "add --yes" in err
    assert command("runs", "cancel", " ", "--yes")[0] == Exit.USAGE
    assert command("runs", "cancel", "flow:one,slow", "--yes")[:2] == (Exit.OK, "cancelled 2 runs\n")
    assert {run.id for run in client.runs(status="cancelled")} == going
    assert client.run(ended).summary().status == "completed"
    assert command("runs", "cancel", ended)[0] == Exit.FAILED


def test_runs_of_a_query_become_files(client: Client, command: Command, tmp_path: Path) -> None:
    runs = {ran(client, "one") for _ in range(2)}
    ran(client, "two")
    export = partial(command, "runs", "export", "flow:one", "--format", "jsonl")
    assert export("-o", str(tmp_path / "none"))[0] == Exit.USAGE
    assert export("-o", str(tmp_path))[1] == f"2 runs would be written to {tmp_path}\n"
    assert list(tmp_path.iterdir()) == []
    assert export("-o", str(tmp_path), "--yes")[:2] == (Exit.OK, f"wrote 2 runs to {tmp_path}\n")
    assert {file.name for file in tmp_path.iterdir()} == {f"run-{run}.jsonl" for run in runs}


def test_a_flow_is_deleted_and_its_runs_where_that_is_asked(client: Client, command: Command) -> None:
    run = ran(client, "one")
    delete = partial(command, "flow", "delete", "acme/demo/one")
    assert delete()[1] == "acme/demo/one would be deleted\n"
    assert delete("--runs")[1] == "acme/demo/one and 1 run would be deleted\n"
    assert delete("--yes")[:2] == (Exit.OK, "deleted acme/demo/one\n")
    assert delete("--yes")[0] == Exit.NOT_FOUND
    assert left(client) == {run}

    client.flow("slow").execute_async()
    code, _, err = command("flow", "delete", "acme/demo/slow", "--yes")
    assert code == Exit.FAILED
    assert "1 run of it has not ended" in err
    deleted = command("flow", "delete", "acme/demo/slow", "--runs", "--yes")
    assert deleted[:2] == (Exit.OK, "deleted acme/demo/slow and 1 run\n")
    assert left(client) == {run}


def test_a_run_that_is_not_there_is_named_and_the_others_go(client: Client, ask: Command) -> None:
    run = ran(client, "one")
    assert ask(run, UNKNOWN)[0] == Exit.NOT_FOUND
    code, out, err = ask(UNKNOWN, run, "--yes")
    assert (code, out) == (Exit.NOT_FOUND, "deleted 1 run\n")
    assert UNKNOWN in err
    assert run not in err
    assert left(client) == set()


def test_an_error_on_the_way_says_how_far_it_came(
    client: Client, ask: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [ran(client, "one") for _ in range(3)]
    from runglass.client import Run

    delete, before = Run.delete, [runs[0]]

    def failing(run: Run, **more: Any) -> None:
        if run.execution_id not in before:
            raise APIConnectionError("the server is gone")
        delete(run, **more)

    monkeypatch.setattr(Run, "delete", failing)
    code, out, err = ask(*runs, "--yes")
    assert (code, out) == (Exit.UNREACHABLE, "")
    assert "deleted 1 of 3 runs, then:" in err
    assert left(client) == set(runs[1:])
