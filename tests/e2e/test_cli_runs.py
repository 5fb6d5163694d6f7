"""`run` and `runs` against a real server: what they print, for people and machines, and their exit codes."""

import io
import json
import re
import sys
from pathlib import Path

import httpx2
import pytest

from runglass.cli.exit_codes import Exit
from runglass.log.events import decode_event
from tests.contract.wire import BROKEN, execute, ran
from tests.e2e.command import MAIN, in_shell, runglass
from tests.e2e.conftest import Printed
from tests.servers import server_with

FLOW = """\
slug: greet
inputs: {type: object, properties: {message: {type: string}, times: {type: integer}}, required: [message]}
steps:
  - {id: say, type: llm, model: echo, prompt: "Hello {{ message }}"}
  - {id: numbers, type: code, code: "return {'numbers': list(range(3))}"}
  - id: rows
    type: loop
    over: numbers
    as: row
    steps:
      - id: columns
        type: loop
        over: "[1, 2]"
        steps:
          - id: cell
            type: code
            retry: {max_attempts: 2, initial_delay_ms: 1}
            code: |
              if row == 1 and index == 1 and attempt == 1:
                  raise ValueError("once [only]")
              return {"product": row * item}
  - id: route
    type: condition
    if: len(items) > 100
    then: [{id: unused, type: passthrough}]
  - {id: result, type: code, code: "return {'said': steps['say']['text'], 'times': initial.get('times')}"}
"""

server = server_with(FLOW, BROKEN.replace("it broke", "this is\\nthe reason"))


pytestmark = pytest.mark.usefixtures("connected")


@pytest.fixture(scope="module")
def run_id(http: httpx2.Client) -> str:
    """A run that completed, with everything kept."""
    return execute(http, "greet", message="you", trace=True)


@pytest.fixture(scope="module")
def failed_id(http: httpx2.Client) -> str:
    """A run that failed."""
    return ran(http, "broken")


def test_run_prints_the_result_and_takes_parameters_as_json_or_text(printed: Printed) -> None:
    output = printed("run", "acme/demo/greet", "-m", "you", "-p", "times=3", "--version", "1")
    assert json.loads(output.out) == {"said": "Hello you", "times": 3}
    assert re.fullmatch(r"run [0-9a-f-]{36}\n", output.err)
    assert (
        "times" in printed("run", "acme/demo/greet", "-m", "you", "-p", "times=three", code=Exit.FAILED).err
    )


def test_run_reads_its_input_from_a_file_or_from_stdin_and_single_parameters_go_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    def result(*arguments: str | Path, stdin: bytes = b"") -> object:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return json.loads(printed("run", "acme/demo/greet", *arguments).out)

    message, inputs = tmp_path / "message.txt", tmp_path / "inputs.json"
    message.write_text("du dä", encoding="utf-8")
    inputs.write_text('{"message": "you", "times": 3}', encoding="utf-8")
    assert result("--message-file", message) == {"said": "Hello du dä", "times": None}
    assert result("--message-file", "-", stdin=b"\xef\xbb\xbfme") == {"said": "Hello me", "times": None}
    assert result("--params-file", inputs) == {"said": "Hello you", "times": 3}
    assert result("--params-file", inputs, "-p", "times=2") == {"said": "Hello you", "times": 2}
    assert result("--params-file", "-", stdin=b'{"message": "me"}') == {"said": "Hello me", "times": None}


def test_a_run_that_fails_names_its_code_step_and_run_and_the_way_to_why(printed: Printed) -> None:
    output = printed("run", "acme/demo/broken", code=Exit.FAILED)
    assert output.out == ""
    assert "STEP_FAILED" in output.err
    assert "step:  bad" in output.err
    command = output.err.splitlines()[-1].removeprefix("trace: runglass ").split()
    status, why, closer, *lines = printed(*command).out.splitlines()
    assert status.startswith("status     ✗ failed in ")
    assert why.startswith("why        bad: CODE_ERROR: ValueError: this is the reason")
    at = next(number for number, line in enumerate(lines) if line.startswith("✗ bad"))
    assert "CODE_ERROR: ValueError: this is the reason" in lines[at + 1]
    assert "this is" in printed(*closer.removeprefix("           runglass ").split()).out


def test_run_as_json_prints_the_whole_answer_or_the_whole_error(printed: Printed) -> None:
    answer = json.loads(printed("run", "acme/demo/greet", "-m", "you", "--json").out)
    assert (answer["status"], answer["blockCount"]) == ("completed", 5)
    detail = json.loads(printed("run", "acme/demo/broken", "--json", code=Exit.FAILED).out)["detail"]
    assert (detail["code"], detail["stepId"]) == ("STEP_FAILED", "bad")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "acme/demo/none"], Exit.NOT_FOUND),
        (["run", "acme/demo/greet", "-m", "x", "--version", "99"], Exit.NOT_FOUND),
        (["run", "acme/demo/greet"], Exit.FAILED),
        (["runs", "show", "00000000-0000-7000-8000-000000000000"], Exit.NOT_FOUND),
        (["runs", "tail", "00000000-0000-7000-8000-000000000000"], Exit.NOT_FOUND),
        (["runs", "step", "00000000-0000-7000-8000-000000000000", "say"], Exit.NOT_FOUND),
        (["runs", "list", "--api-key", "nk_wrong"], Exit.DENIED),
        (["runs", "list", "--base-url", "http://127.0.0.1:1/api/v1"], Exit.UNREACHABLE),
        (["run", "acme/demo/greet", "-m", "x", "--base-url", "http://127.0.0.1:1/api/v1"], Exit.UNREACHABLE),
    ],
)
def test_what_the_server_refuses_has_an_exit_code_and_one_message(
    arguments: list[str], code: Exit, printed: Printed
) -> None:
    output = printed(*arguments, code=code)
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert "Traceback" not in output.err


def test_show_draws_each_iteration_with_its_attempts_and_totals_and_leaves_out_what_does_not_fit(
    run_id: str, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed("runs", "show", run_id).out.splitlines()
    header = next(line for line in lines if line.startswith("step "))
    assert header.split()[-3:] == ["start", "took", "tokens"]
    rows = [line.split() for line in lines[lines.index(header) + 1 :]]
    assert [row[:3] for row in rows if "cell" in row] == [
        ["↻" if (row, column) == (1, 1) else "✓", f"[{column}]", "cell"]
        for row in range(3)
        for column in range(2)
    ]
    attempts = [row[:3] for row in rows if "attempt" in row]
    assert attempts == [["↻", "attempt", "1"], ["✓", "attempt", "2"]]
    assert ["–", "unused", "skipped"] in rows
    assert any(line.split()[:1] == ["tokens"] and "2 prompt + 2 completion = 4" in line for line in lines)
    assert any(line.startswith("cost") and "no known price for 1 model call" in line for line in lines)
    monkeypatch.setenv("COLUMNS", "40")
    *_, left_out = printed("runs", "show", run_id).out.splitlines()
    assert left_out == "(too narrow for: tokens; use a wider terminal or --json)"


def test_show_tells_what_failed_and_what_took_longest_alone(
    run_id: str, failed_id: str, printed: Printed
) -> None:
    output = printed("runs", "show", failed_id, "--failed")
    assert output.out.splitlines()[0] == "1 attempt failed"
    assert output.out.splitlines()[2].startswith("✗ bad  ")
    assert "this is the reason" in output.out.splitlines()[3]
    assert f"runglass runs step {failed_id} STEP" in output.err

    lines = printed("runs", "show", run_id, "--slowest", "2", "--costliest", "2").out.splitlines()
    assert lines[0] == "What took longest"
    words = lines[2].split("  ")[0].split()[1:]
    printed("runs", "step", run_id, *words)
    nothing = "What cost most\nno attempt of which it is known\n"
    assert "\n".join([*lines[4:], ""]) == nothing
    assert printed("runs", "show", run_id, "--costliest", "2") == (nothing, ""), "it names no command"


def test_show_can_be_of_one_part(run_id: str, printed: Printed) -> None:
    lines = [
        line.split()[:3]
        for line in printed("runs", "show", run_id, "--inside", "columns", "--loop", "1").out.splitlines()
    ]
    assert lines[1] == ["↻", "columns", "2"]
    assert lines[2] == ["✓", "[0]", "cell"]
    for inside, message in ((["nothing"], "no step 'nothing'"), (["rows", "--loop", "9"], "no iteration 9")):
        out, err = printed("runs", "show", run_id, "--inside", *inside, code=Exit.NOT_FOUND)
        assert (out, message in err) == ("", True)


def test_json_output_is_the_wire_shape(run_id: str, printed: Printed) -> None:
    trace = json.loads(printed("runs", "show", run_id, "--json").out)
    assert trace["flowRun"]["id"] == run_id
    assert {"stepId", "inputContext"} <= set(trace["steps"][0])

    attempts = json.loads(
        printed("runs", "step", run_id, "cell", "--loop", "1,1", "--attempt", "all", "--json").out
    )["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["failed", "completed"]


def test_tail_replays_every_event_one_a_line_and_tells_failure_by_its_code(
    run_id: str, failed_id: str, printed: Printed
) -> None:
    events = [
        decode_event(line.encode()) for line in printed("runs", "tail", run_id, "--json").out.splitlines()
    ]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].event_type == "flow_completed"

    text = printed("runs", "tail", run_id).out
    assert text.count("\n") == len(events)
    assert "cell [1.1]" in text
    assert "attempt 1 failed" in text

    assert "run failed in step bad" in printed("runs", "tail", failed_id, code=Exit.FAILED).out


def test_an_output_that_is_full_is_told_in_a_sentence(variables: dict[str, str], run_id: str) -> None:
    full = in_shell("", after=">/dev/full")
    done = runglass("runs", "show", run_id, env=variables, inside=full)
    assert done.returncode == Exit.FAILED
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_file_that_cannot_be_written_to_its_end_is_named_and_not_left(
    variables: dict[str, str], run_id: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    limited = in_shell("ulimit -f 0;")
    done = runglass("runs", "export", run_id, "-o", file, env=variables, inside=limited)
    assert done.returncode == Exit.USAGE
    assert done.stderr == f"error: {str(file)!r} cannot be written: File too large\n"
    assert not file.exists()


@pytest.mark.parametrize("arguments", [("runs", "tail", "last", "--json"), ("--help",), ("--version",)])
def test_a_reader_that_goes_away_is_no_error_of_ours(
    variables: dict[str, str], run_id: str, arguments: tuple[str, ...]
) -> None:
    left = f"import os; reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1); {MAIN}"
    done = runglass(*arguments, env=variables, program=left)
    assert (done.returncode, done.stderr) == (Exit.PIPE_CLOSED, "")
