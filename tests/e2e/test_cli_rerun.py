"""`runs rerun`: one run each time, the runs of a query once; and what the client does for it."""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from functools import partial

import pytest

from runglass import AsyncClient, Client, FlowExecutionError
from runglass.cli.exit_codes import Exit
from runglass.config.settings import Price
from runglass.log.trace import RunSummary
from runglass.testing import RunningServer, running_server
from tests.e2e.conftest import Command
from tests.records import there

FLOWS = [
    "slug: ask\ncapture: full\nsteps: [{id: ask, type: llm, model: echo, prompt: '{{ message }}'}]\n",
    "slug: bad\nsteps: [{id: bad, type: code, code: 'raise ValueError()'}]\n",
    "slug: quiet\nsteps: [{id: keep, type: passthrough}]\n",
]


@pytest.fixture
def server() -> Iterator[RunningServer]:
    prices = {"echo": Price(input_per_mtok=Decimal(1), output_per_mtok=Decimal(1))}
    with running_server(prices=prices) as server:
        for flow in FLOWS:
            server.push(flow)
        yield server


@pytest.fixture
def ask(command: Command) -> Command:
    return partial(command, "runs", "rerun")


def ran(client: Client, slug: str, message: str = "hello") -> str:
    job = client.flow(slug).execute_async(message=message)
    client.run(job.execution_id).wait()
    return job.execution_id


def reruns(client: Client) -> list[RunSummary]:
    """Those that there are, oldest first, once they have ended."""
    found = [run.id for run in client.runs(query="trigger:replay", limit=100)]
    return [client.run(run_id).wait() for run_id in reversed(found)]


def test_the_client_runs_a_run_again(server: RunningServer, client: Client) -> None:
    first = client.run(ran(client, "ask"))
    again = first.rerun()
    assert again.wait().rerun_of == first.execution_id
    assert again.trace().flow_run.input == first.trace().flow_run.input == {"inputs": {"message": "hello"}}
    assert again.diff(first).same
    assert again.diff(first.execution_id) == again.diff(first)
    overridden = first.rerun(version="production", block_overrides={"ask": {"prompt": "bye"}})
    overridden.wait()
    assert overridden.trace().flow_run.result == {"text": "bye"}
    with pytest.raises(FlowExecutionError) as refused:
        client.run(ran(client, "quiet")).rerun()
    assert (refused.value.code, refused.value.status) == ("INPUT_NOT_KEPT", 409)
    for bad in ("draft", -1, True):
        with pytest.raises(ValueError, match="version"):
            first.rerun(version=bad)  # type: ignore[arg-type]

    async def run_again() -> str | None:
        async with AsyncClient(server.key, base_url=server.base_url) as own:
            again = await own.run(first.execution_id).rerun(version=1, idempotency_key="once")
            same = await own.run(first.execution_id).rerun(version=1, idempotency_key="once")
            assert again.execution_id == same.execution_id
            return (await again.wait()).rerun_of

    assert asyncio.run(run_again()) == first.execution_id


def test_a_run_that_is_named_is_started_each_time(client: Client, ask: Command) -> None:
    run = ran(client, "ask")
    code, first, _ = ask(run)
    assert code == Exit.OK
    assert ask("last", "--json")[0] == Exit.OK
    found = reruns(client)
    assert found[0].id == first.strip()
    assert [each.rerun_of for each in found] == [run, found[0].id], "the last run was a rerun itself"


def test_an_empty_query_starts_nothing(client: Client, ask: Command) -> None:
    run = ran(client, "ask")
    for query in ("", "  "):
        code, out, err = ask(query, "--yes")
        assert (code, out) == (Exit.USAGE, "")
        assert "status:completed,failed,cancelled" in err
    assert reruns(client) == []
    assert json.loads(ask("status:completed,failed,cancelled", "--yes", "--json")[1])["started"].keys() == {
        run
    }


def test_a_query_is_told_first_and_then_started_once(client: Client, ask: Command) -> None:
    runs = [ran(client, "bad") for _ in range(3)]
    ran(client, "ask")
    code, out, err = ask("status:failed")
    assert (code, out.splitlines()[0]) == (Exit.OK, "3 runs would be started")
    assert "  3 of acme/demo/bad" in out or "3 of bad" in out
    assert "nothing has been started: add --yes" in err
    assert reruns(client) == []

    assert ask("status:failed", "--yes")[1].startswith("started 3 runs")
    found = reruns(client)
    assert [run.rerun_of for run in found] == runs
    code, out, _ = ask("status:failed", "--yes", "--json")
    told = json.loads(out)
    assert (code, told["started"], told["before"]) == (Exit.OK, {}, 3)
    assert {run.session_id for run in found} == {told["session"]}
    runs.append(ran(client, "bad"))
    assert ask("  status:failed ", "--yes")[1].startswith("started 1 run; 3 before, by the same command")
    assert [run.rerun_of for run in reruns(client)] == runs
    assert json.loads(ask("status:failed", "--version", "1", "--json")[1])["count"] == 4, "another command"


def test_a_budget_ends_it_before_the_first_runs_cost_more(client: Client, ask: Command) -> None:
    runs = [ran(client, "ask") for _ in range(3)]
    costs = [client.run(run).summary().totals for run in runs]
    assert costs[0] is not None
    one = there(costs[0].cost_usd)
    two = format(float(one) * 2.5, "f")
    code, out, err = ask("flow:ask", "--budget", two, "--yes")
    assert (code, out.startswith("started 2 runs")) == (Exit.OK, True)
    assert "1 run left out: beyond the budget" in err
    assert ask("flow:ask", "--budget", two, "--yes")[1].startswith("started 0 runs; 2 before")
    assert [run.rerun_of for run in reruns(client)] == runs[:2]
    assert json.loads(ask("flow:ask", "--budget", "0", "--json")[1])["overBudget"] == 1
    for bad in (["flow:ask", "--budget", "much"], [runs[0], "--budget", "1"], ["flow:ask", "--version", "x"]):
        assert ask(*bad)[0] == Exit.USAGE


def test_a_run_that_is_refused_takes_nothing_of_the_budget(
    server: RunningServer, client: Client, ask: Command
) -> None:
    """Without an input it is known before; one without that version is refused when it is to be started."""
    server.push(FLOWS[0].replace("capture: full", "capture: metadata_only").replace("ask", "kept-none"))
    server.push(FLOWS[0].replace("slug: ask", "slug: other"))
    ran(client, "kept-none"), ran(client, "other")
    run = ran(client, "ask")
    totals = there(client.run(run).summary().totals)
    budget = ["status:completed", "--budget", str(totals.cost_usd)]
    _, out, err = ask(*budget, "--json")
    assert {name: json.loads(out)[name] for name in ("count", "overBudget")} == {"count": 1, "overBudget": 1}
    assert "1 run kept no input and cannot be run again\n" in err
    server.push(FLOWS[0].replace("message", "message ~ message"))
    _, out, _ = ask(*budget, "--version", "2", "--yes", "--json")
    told = json.loads(out)
    assert (list(told["started"]), len(told["refused"]), told["overBudget"]) == ([run], 2, 0)


def test_the_same_command_starts_nothing_once_its_calls_are_forgotten(
    server: RunningServer, client: Client, ask: Command
) -> None:
    """A call is known for 24 hours; the runs that it started are there for longer."""
    ran(client, "bad")
    assert ask("flow:bad", "--yes")[1].startswith("started 1 run")
    forgotten = server.call(server.runtime.store.forget_calls(before="9999"))
    assert forgotten > 0
    assert ask("flow:bad", "--yes")[1].startswith("started 0 runs; 1 before")
    assert len(reruns(client)) == 1
