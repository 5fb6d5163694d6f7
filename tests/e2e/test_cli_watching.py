"""`run` from its first line to its last: its id, its events, Ctrl-C, a time limit, a server that is lost."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from runglass import Client
from runglass.cli.backends.run_watcher import WatchedRun
from runglass.cli.exit_codes import Exit
from runglass.client.core import run_requests
from runglass.client.core.requests import FlowAddress
from tests.contract.wire import ENDLESS
from tests.e2e.command import fill, runglass, started, watched
from tests.e2e.test_cli_runs import FLOW
from tests.ports import free_port
from tests.servers import server_with
from tests.unit.client.scripted import (
    SEQS,
    Mute,
    ScriptedServer,
    answers,
    hangs_up,
    refuses,
    sends,
    stream,
)
from tests.unit.client.sides import KEY, RUN

WAITING = {
    "slug": "waiting",
    "steps": [
        {"id": "pause", "type": "wait", "ms": 1500},
        {"id": "result", "type": "code", "code": "return {'is': 'here'}"},
    ],
}


server = server_with(FLOW, ENDLESS)


def id_in(line: str) -> str:
    assert line.startswith("run "), line
    return line.removeprefix("run ")


def test_a_watched_run_shows_its_steps_on_stderr_and_stdout_stays_clean(variables: dict[str, str]) -> None:
    with watched("run", "acme/demo/greet", "-m", "you", env=variables) as run:
        run.terminal_until(f"({variables['RUNGLASS_BASE_URL']})")
        text = run.terminal_until("run completed")
        assert run.wait() == Exit.OK
        assert json.loads(run.stdout())["said"] == "Hello you"
        run.terminal_until("look closer: runglass runs show 01")
    assert text.index("run 01") < text.index("run started") < text.index("attempt 1 failed")


def test_the_id_is_printed_while_the_run_goes_on_also_without_a_terminal(
    client: Client, variables: dict[str, str]
) -> None:
    with started("run", "acme/demo/endless", env=variables) as run:
        run_id = id_in(run.line_of_stderr_with("run "))
        assert client.run(run_id).trace().flow_run.status in ("pending", "running")
        assert runglass("runs", "cancel", run_id, env=variables).returncode == Exit.OK
        assert "cancelled" in run.line_of_stderr_with("error: ")
        assert run.wait() == Exit.FAILED


def test_ctrl_c_leaves_the_run_alone_and_names_it(client: Client, variables: dict[str, str]) -> None:
    with watched("run", "acme/demo/endless", env=variables) as run:
        run.terminal_until("hold")
        assert run.interrupt() == Exit.INTERRUPTED
        run_id = run.terminal_until("runs tail ", then=r"[0-9a-f-]{36}")
        run.terminal_until(f"runs cancel {run_id}")
    assert client.run(run_id).trace().flow_run.status == "running"
    with started("runs", "tail", run_id, env=variables) as tail:
        while "hold" not in tail.line():
            pass
        assert tail.interrupt() == Exit.INTERRUPTED
    # A tail on a terminal paints what goes on.
    with watched("runs", "tail", run_id, env=variables, stdout=subprocess.STDOUT) as painted:
        painted.terminal_until("completed in")
        painted.terminal_until("hold", then=r"[^\n]* s")
        assert painted.interrupt() == Exit.INTERRUPTED
        shown = painted.terminal_until(f"runs cancel {run_id}")
    # The area is cleared at the end, and the cursor was there all the time.
    *_, after = shown.rpartition("\x1b[2K")
    assert "endless" not in after
    assert "hold" not in after
    assert "\x1b[?25l" not in shown
    assert runglass("runs", "cancel", run_id, env=variables).returncode == Exit.OK


def test_ctrl_c_twice_cancels_the_run(client: Client, variables: dict[str, str]) -> None:
    with started("run", "acme/demo/endless", env=variables) as run:
        run_id = id_in(run.line_of_stderr_with("run "))
        run.send(signal.SIGINT)
        run.line_of_stderr_with("runs cancel", run_id)
        run.send(signal.SIGINT)
        run.line_of_stderr_with(f"run {run_id} is cancelled")
        assert run.wait() == Exit.INTERRUPTED
    assert client.run(run_id).trace().flow_run.status == "cancelled"


def test_ctrl_c_before_the_server_has_answered_promises_nothing() -> None:
    mute = Mute(opens=0)
    with ScriptedServer() as server:
        server.plays(mute)
        variables = {"RUNGLASS_API_KEY": KEY, "RUNGLASS_BASE_URL": server.url}
        with started("run", "acme/demo/endless", env=variables) as run:
            assert mute.asked.wait(60)
            assert run.interrupt() == Exit.INTERRUPTED
            run.line_of_stderr_with("stopped before the server had named a run", "runglass runs list")


def test_a_run_outlives_its_server_and_so_does_the_command_that_waits_for_it(tmp_path: Path) -> None:
    data, port = tmp_path / "data", str(free_port())
    key = fill(data, WAITING)
    serve = ("serve", "--port", port, "--data", data)
    variables = {"RUNGLASS_API_KEY": key, "RUNGLASS_BASE_URL": f"http://127.0.0.1:{port}"}
    with started(*serve) as first:
        assert first.line() == f"ready http://127.0.0.1:{port}"
        with started("run", "acme/shop/waiting", env=variables) as run:
            run_id = id_in(run.line_of_stderr_with("run "))
            first.kill()
            with started(*serve):
                assert run.wait() == Exit.OK
                assert json.loads("".join(run.line() for _ in range(3))) == {"is": "here"}
                listed = json.loads(runglass("runs", "list", "--json", env=variables).stdout)
    assert [each["id"] for each in listed["runs"]] == [run_id]


def test_a_run_whose_acceptance_was_lost_is_asked_for_again_under_the_same_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    accepted = {"executionId": RUN, "status": "pending", "flowId": "f", "blockCount": 1}
    done = {"executionId": RUN, "status": "completed", "result": {"text": "é"}, "error": None}
    unavailable, seen = refuses(503, "UNAVAILABLE"), list[int]()
    with ScriptedServer() as server, Client(KEY, base_url=server.url, max_retries=0) as client:
        begins = hangs_up, hangs_up, unavailable, answers(accepted, status=202)
        server.plays(*begins, sends(stream()), unavailable, answers(done))
        call = run_requests.job(FlowAddress("a", "p", "s"), message="hi")
        run = WatchedRun(client, call, longest_wait_s=0.01)
        assert run.result(lambda event: seen.append(event.seq)).result == {"text": "é"}
    assert seen == SEQS
    posts = [each for each in server.requests if each.method == "POST"]
    assert len(posts) == 4
    assert len({each.headers["idempotency-key"] for each in posts}) == 1
    assert len({each.body for each in posts}) == 1
    # Once for the acceptance, once for the result: not for each attempt.
    assert capsys.readouterr().err.count("asked again until it answers") == 2
