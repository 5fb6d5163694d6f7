"""`runs diff` against a real server: what it prints, for people and machines, and its exit codes."""

import json

import pytest

from runglass.cli.commands.runs import diff_lines
from runglass.client import Client
from runglass.diff.run_diff import FieldChange, RowDiff, RunDiff, ValueChange
from runglass.log.trace import RunSummary
from tests.e2e.conftest import Command
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


@pytest.fixture
def diff(client: Client, command: Command) -> Command:
    """Runs the flow with two messages, and the command on the two runs."""

    def of(a: str, b: str, *options: str) -> tuple[int, str, str]:
        runs = [client.flow("greet").execute(message=message).execution_id for message in (a, b)]
        code, out, err = command("runs", "diff", runs[0], "last", *options)
        assert options == ("--json",) or all(
            line.startswith(f"{which:<12}{run}  greet v1  completed  ")
            for which, run, line in zip(("first run", "second run"), runs, out.splitlines(), strict=False)
        )
        return code, out, err

    return of


def test_runs_that_are_the_same_end_with_0(diff: Command) -> None:
    code, out, err = diff("a b", "a b")
    assert (code, err) == (0, "attempts that differ: 0; that are the same: 3\n")
    assert out.splitlines()[2:] == ["", "the runs are the same"]


def test_runs_that_differ_end_with_1_and_each_change(diff: Command) -> None:
    code, out, _ = diff("a gut", "a good")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 1
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
    assert "shout[0]" in diff("a gut", "a good", "--all")[1], "it is the same"


def test_json_is_for_machines(diff: Command) -> None:
    code, out, _ = diff("a gut", "a good", "--json")
    found = json.loads(out)
    assert (code, found["same"], found["differentRows"]) == (1, False, 2)
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
