"""`runs diff` against a real server: what it prints, for people and machines, and its exit codes."""

import json

import pytest

from runglass.cli.commands.runs import diff_lines
from runglass.client import Client
from runglass.diff.run_diff import FieldChange, RowDiff, RunDiff, ValueChange
from runglass.log.trace import RunSummary
from runglass.testing import RunningServer
from tests.e2e.command import runglass
from tests.servers import server_with

FLOW = """\
slug: greet
steps:
  - {id: words, type: code, code: "return {'words': message.split()}"}
  - id: each
    type: loop
    over: words
    as: word
    steps:
      - id: shout
        type: code
        retry: {max_attempts: 2, initial_delay_ms: 0}
        code: |
          if word == "again" and attempt == 1:
              raise ValueError("not yet")
          return {"text": word.upper()}
"""


server = server_with(FLOW, capture="full")


@pytest.fixture(autouse=True)
def _connected(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="module")
def env(server: RunningServer) -> dict[str, str]:
    return {"RUNGLASS_BASE_URL": server.base_url, "RUNGLASS_API_KEY": server.key}


def run(server: RunningServer, message: str) -> str:
    with Client(server.key, base_url=server.base_url, org="acme", project="demo") as client:
        return client.flow("greet").execute(message=message).execution_id


def test_runs_that_are_the_same_end_with_0(server: RunningServer, env: dict[str, str]) -> None:
    a, b = run(server, "a b"), run(server, "a b")
    done = runglass("runs", "diff", a, b, env=env)
    assert (done.returncode, done.stderr) == (0, "attempts that differ: 0; that are the same: 3\n")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"first run   {a}  greet v1  completed  ")
    assert lines[1].startswith(f"second run  {b}  greet v1  completed  ")
    assert lines[2:] == ["", "the runs are the same"]


def test_runs_that_differ_end_with_1_and_each_change(server: RunningServer, env: dict[str, str]) -> None:
    a, b = run(server, "a gut"), run(server, "a good")
    done = runglass("runs", "diff", a, "last", env=env)
    assert done.returncode == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[1].startswith(f"second run {b}")
    assert [line for line in lines[3:] if "duration" not in line] == [
        'first divergence words: input differs at message: "a gut" / "a good"',
        "",
        "words",
        'input differs at message: "a gut" / "a good"',
        'output differs at words[1]: "gut" / "good"',
        "shout[1]",
        'input differs at word: "gut" / "good"',
        'output differs at text: "GUT" / "GOOD"',
    ]


def test_all_lists_what_is_the_same_too_and_json_is_for_machines(
    server: RunningServer, env: dict[str, str]
) -> None:
    a, b = run(server, "a gut"), run(server, "a good")
    shown = runglass("runs", "diff", a, b, "--all", env=env).stdout
    assert "shout[0]" in shown
    assert "shout[0]" not in runglass("runs", "diff", a, b, env=env).stdout
    done = runglass("runs", "diff", a, b, "--json", env=env)
    found = json.loads(done.stdout)
    assert (done.returncode, found["same"], found["differentRows"]) == (1, False, 2)
    assert found["firstDivergence"]["stepId"] == "words"


def diff_of(*rows: RowDiff, **fields: object) -> RunDiff:
    run = RunSummary(id="r", flow_id="f", status="completed")
    found: dict[str, object] = {"same": False, "flows": "same", "cut": True, **fields}
    return RunDiff(a=run, b=run, rows=list(rows), **found)  # type: ignore[arg-type]


def test_what_runs_hold_cannot_look_like_a_line_of_ours() -> None:
    place = ValueChange(path='["\\u001b[2J"]', kind="changed", a="x\n\x1b[31mfake", b="\u202e")
    found = diff_of(RowDiff(step_id="s", changes=[FieldChange(field="output", paths=[place])]))
    lines = list(diff_lines(found))
    assert [line.plain for line in lines[-2:]] == [
        "s",
        '  output differs at ["\\u001b[2J"]: "x\\n\\u001b[31mfake" / "\ufffd"',
    ]
    assert not {"\x1b", "\n", "\u202e"} & set("".join(str(line) for line in lines))
