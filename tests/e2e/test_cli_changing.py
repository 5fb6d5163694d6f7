"""`runs delete`, `cancel`, `export` and `rerun` of runs and of queries, and `flow delete`.

Each tells first, does what was named and nothing else, and says what it did; a query is rerun once.
"""

import json
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runglass import Client, Run
from runglass.cli.exit_codes import Exit
from runglass.config.settings import Price
from runglass.errors import APIConnectionError
from runglass.log.trace import RunSummary
from runglass.testing import RunningServer
from tests.contract.wire import ANYTHING, BROKEN, ENDLESS
from tests.e2e.conftest import Printed
from tests.records import there
from tests.servers import server_with

FLOWS = [*(ANYTHING.replace("anything", slug) for slug in ("one", "two")), BROKEN, ENDLESS]
ASK = "slug: ask\ncapture: full\nsteps: [{id: ask, type: llm, model: echo, prompt: '{{ message }}'}]\n"
UNKNOWN = "01900000-0000-7000-8000-000000000000"
PRICES = {"echo": Price(input_per_mtok=Decimal(1), output_per_mtok=Decimal(1))}


server = server_with(*FLOWS, ASK, scope="function", prices=PRICES)


pytestmark = pytest.mark.usefixtures("connected")


@pytest.fixture
def delete(printed: Printed) -> Printed:
    return partial(printed, "runs", "delete")


@pytest.fixture
def rerun(printed: Printed) -> Printed:
    return partial(printed, "runs", "rerun")


def ran(client: Client, slug: str) -> str:
    """The id of a run of the flow that has ended, however it did."""
    job = client.flow(slug).execute_async(message="hello")
    job.run.wait()
    return job.execution_id


def left(client: Client) -> set[str]:
    return {run.id for run in client.runs(limit=100).runs}


def test_named_runs_are_told_first_and_then_deleted_and_one_that_is_not_there_is_named(
    client: Client, delete: Printed
) -> None:
    old, new, other = (ran(client, "one") for _ in range(3))
    out, err = delete(new, old, new[-8:])
    lines = out.splitlines()
    assert lines[0] == "2 runs would be deleted"
    assert [line.split()[:2] for line in lines[1:]] == [["oldest", old], ["newest", new]]
    assert "nothing has been deleted: add --yes" in err
    assert left(client) == {old, new, other}

    assert delete(new, old, new[-8:], "--yes") == ("deleted 2 runs\n", "")
    delete(other, UNKNOWN, code=Exit.NOT_FOUND)
    assert left(client) == {other}
    out, err = delete(UNKNOWN, other, "--yes", code=Exit.NOT_FOUND)
    assert (out, UNKNOWN in err, other in err) == ("deleted 1 run\n", True, False)
    assert left(client) == set()


def test_a_query_takes_runs_that_have_ended_unless_it_says_otherwise(client: Client, delete: Printed) -> None:
    one, two = ran(client, "one"), ran(client, "two")
    going = client.flow("endless").execute_async().execution_id
    told = json.loads(delete("--flow", "one", "--json").out)
    assert (told["count"], told["oldest"]["id"], told["newest"]) == (1, one, told["oldest"])
    assert delete("--flow", "acme/demo/one", "--yes").out == "deleted 1 run\n"
    assert left(client) == {two, going}
    assert json.loads(delete("--older-than", "0m", "--yes", "--json").out) == {
        "deleted": [two],
        "missing": [],
    }
    assert left(client) == {going}
    assert delete("--flow", "endless", "--yes").out == "deleted 0 runs\n"
    assert delete("--status", "running", "--yes").out == "deleted 1 run\n"
    assert left(client) == set()


def test_a_run_and_those_of_a_query_are_cancelled_once(client: Client, printed: Printed) -> None:
    ended, named = ran(client, "one"), client.flow("endless").execute_async().execution_id
    assert printed("runs", "cancel", named).out == f"run {named} is cancelled\n"
    for run, status in ((named, "cancelled"), (ended, "completed")):
        err = printed("runs", "cancel", run, code=Exit.FAILED).err
        assert f"has ended already; its status is {status}" in err
    going = {client.flow("endless").execute_async().execution_id for _ in range(2)}
    out, err = printed("runs", "cancel", "flow:one,endless status:running,pending,completed")
    assert out == "2 runs would be cancelled\n"
    assert "add --yes" in err
    printed("runs", "cancel", " ", "--yes", code=Exit.USAGE)
    assert printed("runs", "cancel", "flow:one,endless", "--yes").out == "cancelled 2 runs\n"
    assert {run.id for run in client.runs(status="cancelled")} == {named, *going}
    assert client.run(ended).summary().status == "completed"


def test_runs_of_a_query_become_files(client: Client, printed: Printed, tmp_path: Path) -> None:
    runs = {ran(client, "one") for _ in range(2)}
    ran(client, "two")
    export = partial(printed, "runs", "export", "flow:one", "--format", "jsonl")
    export("-o", tmp_path / "none", code=Exit.USAGE)
    assert export("-o", tmp_path).out == f"2 runs would be written to {tmp_path}\n"
    assert list(tmp_path.iterdir()) == []
    assert export("-o", tmp_path, "--yes").out == f"wrote 2 runs to {tmp_path}\n"
    assert {file.name for file in tmp_path.iterdir()} == {f"run-{run}.jsonl" for run in runs}


def test_a_flow_is_deleted_and_its_runs_where_that_is_asked(client: Client, printed: Printed) -> None:
    run = ran(client, "one")
    delete = partial(printed, "flow", "delete", "acme/demo/one")
    assert delete().out == "acme/demo/one would be deleted\n"
    assert delete("--runs").out == "acme/demo/one and 1 run would be deleted\n"
    assert delete("--yes").out == "deleted acme/demo/one\n"
    delete("--yes", code=Exit.NOT_FOUND)
    assert left(client) == {run}

    client.flow("endless").execute_async()
    delete = partial(printed, "flow", "delete", "acme/demo/endless", "--yes")
    assert "1 run of it has not ended" in delete(code=Exit.FAILED).err
    assert delete("--runs").out == "deleted acme/demo/endless and 1 run\n"
    assert left(client) == {run}


def test_an_error_on_the_way_says_how_far_it_came(
    client: Client, delete: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [ran(client, "one") for _ in range(3)]
    delete_one, before = Run.delete, [runs[0]]

    def failing(run: Run, **more: Any) -> None:
        if run.execution_id not in before:
            raise APIConnectionError("the server is gone")
        delete_one(run, **more)

    monkeypatch.setattr(Run, "delete", failing)
    out, err = delete(*runs, "--yes", code=Exit.UNREACHABLE)
    assert out == ""
    assert "deleted 1 of 3 runs, then:" in err
    assert left(client) == set(runs[1:])


def reruns(client: Client) -> list[RunSummary]:
    """Those that there are, oldest first, once they have ended."""
    found = [run.id for run in client.runs(query="trigger:replay", limit=100)]
    return [client.run(run_id).wait() for run_id in reversed(found)]


def test_a_run_that_is_named_is_started_each_time(client: Client, rerun: Printed) -> None:
    run = ran(client, "ask")
    first = rerun(run).out
    rerun("last", "--json")
    found = reruns(client)
    assert found[0].id == first.strip()
    assert [each.rerun_of for each in found] == [run, found[0].id], "the last run was a rerun itself"


def test_a_query_is_told_first_and_then_started_once(
    server: RunningServer, client: Client, rerun: Printed
) -> None:
    runs = [ran(client, "broken") for _ in range(3)]
    ran(client, "ask")
    out, err = rerun("status:failed")
    assert out.splitlines()[0] == "3 runs would be started"
    assert "\n  3 of broken" in out
    assert "nothing has been started: add --yes" in err
    for empty in ("", "  "):
        assert "status:completed,failed,cancelled" in rerun(empty, "--yes", code=Exit.USAGE).err
    assert reruns(client) == []

    assert rerun("status:failed", "--yes").out.startswith("started 3 runs")
    found = reruns(client)
    assert [run.rerun_of for run in found] == runs
    told = json.loads(rerun("status:failed", "--yes", "--json").out)
    assert (told["started"], told["before"]) == ({}, 3)
    assert {run.session_id for run in found} == {told["session"]}
    runs.append(ran(client, "broken"))
    assert rerun("  status:failed ", "--yes").out.startswith("started 1 run; 3 before, by the same command")
    # A call is known for 24 hours; the runs that it started are there for longer.
    assert server.call(server.runtime.store.forget_calls(before="9999")) > 0
    assert rerun("status:failed", "--yes").out.startswith("started 0 runs; 4 before")
    assert [run.rerun_of for run in reruns(client)] == runs
    assert json.loads(rerun("status:failed", "--version", "1", "--json").out)["count"] == 4, "another command"


def test_a_budget_ends_it_before_the_first_runs_cost_more(client: Client, rerun: Printed) -> None:
    runs = [ran(client, "ask") for _ in range(3)]
    one = there(client.run(runs[0]).summary().totals)
    two = format(float(there(one.cost_usd)) * 2.5, "f")
    out, err = rerun("flow:ask", "--budget", two, "--yes")
    assert out.startswith("started 2 runs")
    assert "1 run left out: beyond the budget" in err
    assert rerun("flow:ask", "--budget", two, "--yes").out.startswith("started 0 runs; 2 before")
    assert [run.rerun_of for run in reruns(client)] == runs[:2]
    assert json.loads(rerun("flow:ask", "--budget", "0", "--json").out)["overBudget"] == 1
    for bad in (["flow:ask", "--budget", "much"], [runs[0], "--budget", "1"], ["flow:ask", "--version", "x"]):
        rerun(*bad, code=Exit.USAGE)


def test_a_run_that_is_refused_takes_nothing_of_the_budget(
    server: RunningServer, client: Client, rerun: Printed
) -> None:
    """Without an input it is known before; one without that version is refused when it is to be started."""
    server.push(ASK.replace("capture: full", "capture: metadata_only").replace("ask", "kept-none"))
    server.push(ASK.replace("slug: ask", "slug: other"))
    ran(client, "kept-none"), ran(client, "other")
    run = ran(client, "ask")
    totals = there(client.run(run).summary().totals)
    budget = ["status:completed", "--budget", str(totals.cost_usd)]
    out, err = rerun(*budget, "--json")
    assert {name: json.loads(out)[name] for name in ("count", "overBudget")} == {"count": 1, "overBudget": 1}
    assert "1 run kept no input and cannot be run again\n" in err
    server.push(ASK.replace("message", "message ~ message"))
    told = json.loads(rerun(*budget, "--version", "2", "--yes", "--json", code=Exit.FAILED).out)
    assert (list(told["started"]), len(told["refused"]), told["overBudget"]) == ([run], 2, 0)
