"""Finding a run in the terminal and reading what it came to: lists, short ids, totals, model calls."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from msgspec import structs

from runglass import Client
from runglass.cli import argument_parsers, main
from runglass.cli.backends import server as server_backend
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal import formatting
from runglass.cli.terminal.event_lines import EventLines
from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.cli.terminal.run_view import summary_lines
from runglass.cli.terminal.step_view import attempt_lines
from runglass.cli.terminal.table import print_runs
from runglass.log.events import decode_event
from runglass.log.trace import (
    ModelCall,
    ModelTotals,
    RunError,
    RunSummary,
    RunTotals,
    StepTrace,
    TokenBreakdown,
)
from runglass.testing import RunningServer, running_server

FLOW = """\
slug: greet
inputs: {type: object, properties: {message: {type: string}}, required: [message]}
steps:
  - {id: say, type: llm, model: echo, system: be kind, prompt: "Hello {{ message }}"}
  - id: flaky
    type: code
    retry: {max_attempts: 2, initial_delay_ms: 1}
    code: "return {'n': 1 / (attempt - 1)}"
"""
SECRET = FLOW.replace("slug: greet", "slug: secret\ncapture: 'off'")
FAILING = """\
slug: fail
steps: [{id: broken, type: code, code: "raise ValueError('the reason')"}]
"""
ENDLESS = """\
slug: endless
steps: [{id: endless, type: wait, ms: 60000}]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as server:
        for flow in (FLOW, SECRET, FAILING, ENDLESS):
            server.push(flow)
        yield server


@pytest.fixture(autouse=True)
def _connected(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNGLASS_BASE_URL", server.address)
    monkeypatch.setenv("RUNGLASS_API_KEY", server.key)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="module")
def ids(server: RunningServer) -> dict[str, str]:
    """A run of each kind, the oldest first."""
    with Client(server.key, base_url=server.address) as client:

        def run(slug: str, **given: Any) -> str:
            job = client.flow(f"acme/demo/{slug}").execute_async(message="you", **given)
            job.run.wait(timeout=60)
            return job.execution_id

        return {
            "kept": run("greet", trace=True, block_overrides={"say": {"system": "be brief"}}),
            "plain": run("greet"),
            "off": run("secret", trace=True),
            "failed": run("fail"),
        }


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == Exit.OK, capsys.readouterr().err
    return capsys.readouterr().out


def test_a_list_names_flow_version_cost_and_error_and_its_short_ids_are_understood(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    header, *rows = shown(capsys, "runs", "list").splitlines()
    assert header.split() == [
        *("run", "status", "flow", "started", "duration", "steps", "tokens", "cost", "trigger", "remarks")
    ]
    cells = {row.split()[0]: re.split(r" {2,}", row) for row in rows}
    for kind, run_id in ids.items():
        short = run_id[-8:]
        assert short in cells, kind
        assert f"run        {run_id}" in shown(capsys, "runs", "show", short).splitlines()
    assert cells[ids["failed"][-8:]][1:3] == ["✗ failed", "fail v1"]
    assert cells[ids["failed"][-8:]][-1] == "CODE_ERROR in step broken: ValueError: the reason (line 1)"
    assert cells[ids["kept"][-8:]][-1] == "with overrides"
    assert cells[ids["kept"][-8:]][5].endswith(" (1 retried)")
    assert re.fullmatch(r"now|\d+ (s|min) ago", cells[ids["plain"][-8:]][3])
    assert cells[ids["plain"][-8:]][2] == "greet v1"
    assert cells[ids["plain"][-8:]][-1] == "job"


def test_a_piped_list_has_whole_ids(ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = shown(capsys, "runs", "list").splitlines()[1:]
    assert set(ids.values()) <= {row.split()[0] for row in rows}


def test_a_list_may_be_of_what_failed_lately_and_of_a_flow(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*arguments: str) -> list[str]:
        found = json.loads(shown(capsys, "runs", "list", "--json", *arguments))
        return [run["id"] for run in found["runs"]]

    assert listed("--failed") == listed("--status", "failed") == [ids["failed"]]
    assert listed("--flow", "greet") == listed("--flow", "acme/demo/greet") == [ids["plain"], ids["kept"]]
    assert set(listed("--since", "1d")) >= set(ids.values())
    assert listed("--since", "2100-01-01") == []
    with Client() as client:
        begun = client.run(ids["off"]).trace().flow_run.started_at
    assert begun is not None
    # The id's time is when the run was accepted, a moment before it began.
    since = datetime.fromisoformat(begun) - timedelta(milliseconds=100)
    assert set(listed("--since", since.isoformat())) >= {ids["off"], ids["failed"]}
    assert ids["kept"] not in listed("--since", begun, "--limit", "100")
    assert main(["runs", "list", "--failed", "--status", "completed"]) == Exit.USAGE
    assert main(["runs", "list", "--since", "soon"]) == Exit.USAGE
    assert "2026-11-20" in capsys.readouterr().err


def test_a_time_is_an_age_or_a_date_in_the_local_zone() -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert argument_parsers.since("90s", now=now) == now - timedelta(seconds=90)
    assert argument_parsers.since("2h", now=now) == now - timedelta(hours=2)
    assert argument_parsers.since("1w", now=now) == now - timedelta(weeks=1)
    assert argument_parsers.since("2026-11-20", now=now) == datetime(2026, 11, 20).astimezone()
    assert argument_parsers.since("2026-11-20T10:00+02:00", now=now) == datetime(2026, 11, 20, 8, tzinfo=UTC)
    for text in ("", "h", "-1h", "999999w", "2026-13-01", "2h ago"):
        with pytest.raises(UsageError, match="is no time"):
            argument_parsers.since(text, now=now)


def test_a_run_is_named_by_its_id_its_end_its_beginning_or_last(ids: dict[str, str]) -> None:
    kept = ids["kept"]
    with Client() as client:
        assert server_backend.named_run(client, kept.upper()).execution_id == kept
        assert server_backend.named_run(client, kept[-8:].upper()).execution_id == kept
        assert server_backend.named_run(client, kept[:-4]).execution_id == kept
        assert server_backend.named_run(client, "last").execution_id == client.runs(limit=1).runs[0].id


def test_a_name_that_is_no_run_or_several_says_what_to_write(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, code, message in (
        ("abc", Exit.USAGE, "at least 4 characters"),
        ("newest", Exit.USAGE, "does not name a run"),
        (ids["kept"][:6], Exit.USAGE, f"write more of the one you mean:\n  {ids['failed']}"),
        ("ffffffff", Exit.NOT_FOUND, "ends or begins with 'ffffffff'"),
    ):
        for command in (["show"], ["tail"], ["step"], ["cancel"]):
            more = ["say"] if command == ["step"] else []
            assert main(["runs", *command, name, *more]) == code, name
            assert message in capsys.readouterr().err


def test_last_where_there_is_no_run(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", "last", "--api-key", server.make_key("new", "one")]) == Exit.NOT_FOUND
    assert "there is no run yet" in capsys.readouterr().err


def test_a_run_is_cancelled_once_and_then_has_its_status(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with Client() as client:
        run_id = client.flow("acme/demo/endless").execute_async().execution_id
    assert shown(capsys, "runs", "cancel", run_id) == f"run {run_id} is cancelled\n"
    assert main(["runs", "cancel", run_id]) == Exit.FAILED
    assert "has ended already; its status is cancelled" in capsys.readouterr().err
    assert main(["runs", "cancel", ids["plain"]]) == Exit.FAILED
    assert "its status is completed" in capsys.readouterr().err


def test_show_tells_overrides_retries_and_the_true_reason_of_an_unknown_cost(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "runs", "show", ids["kept"])
    for line in (
        "flow       greet v1",
        "overrides  say.system",
        "steps      2 completed, 1 attempt failed and retried",
        "tokens     4 prompt + 2 completion = 6",
        "cost       –; no known price for 1 model call",
    ):
        assert line in text.splitlines()
    assert re.search(r"^trigger    job, by the key nk_live_\w+$", text, re.MULTILINE)


def test_step_shows_what_the_model_was_asked_and_answered(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "runs", "step", ids["kept"], "say")
    call = text[text.index("model call 1  echo") :].splitlines()
    for line in ("  system     be brief", "  user       Hello you", "  answer     Hello you"):
        assert line in call
    assert "  cost       – (no known price)" in call
    whole = json.loads(shown(capsys, "runs", "step", ids["kept"], "say", "--json"))
    assert whole["modelCalls"][0]["request"]["system"] == "be brief"


def test_what_is_not_kept_says_so_and_promises_only_what_helps(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = shown(capsys, "runs", "step", ids["plain"], "say")
    assert plain.count("not kept, or removed since; capture mode full keeps it") == 3
    off = shown(capsys, "runs", "step", ids["off"], "say")
    assert off.count("under capture mode off nothing is, and --trace does not change that") == 3
    assert "runglass run" not in off


def test_times_are_local_and_say_their_zone_and_json_stays_utc(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client() as client:
        trace = client.run(ids["kept"]).trace()
    assert trace.flow_run.started_at is not None
    began = datetime.fromisoformat(trace.flow_run.started_at)
    there = began.astimezone(timezone(timedelta(hours=5, minutes=45)))
    local = there.strftime("%Y-%m-%d %H:%M:%S +05:45")
    monkeypatch.setenv("TZ", "NPT-5:45")
    time.tzset()
    try:
        assert local in shown(capsys, "runs", "list")
        assert local in shown(capsys, "runs", "show", ids["kept"])
        step = shown(capsys, "runs", "step", ids["kept"], "say")
        assert re.search(r"^started +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \+05:45$", step, re.MULTILINE)
        assert not re.search(r"\d\dT\d\d", step)
        assert trace.flow_run.started_at in shown(capsys, "runs", "show", ids["kept"], "--json")
    finally:
        monkeypatch.undo()
        time.tzset()


TOKENS = TokenBreakdown(prompt=10, completion=5, total=15)
TOTALS = RunTotals(
    completed=2,
    failed=1,
    retried=3,
    tokens=TOKENS,
    cost_usd="0.30",
    failed_cost_usd="0.1",
    unmetered_calls=3,
    unpriced_calls=2,
    by_model={
        "a:big": ModelTotals(calls=4, tokens=TOKENS, cost_usd="0.30", unmetered_calls=3),
        "b:small": ModelTotals(calls=2, unpriced_calls=2),
    },
    finish_reasons={"length": 2, "stop": 4},
)
FAILED = RunSummary(
    id="0198c0de-0000-7000-8000-0000000000aa",
    flow_id="f",
    status="failed",
    flow_slug="greet",
    version=0,
    error=RunError(code="PROVIDER_ERROR", step_id="say", message="out of\nlines"),
    totals=TOTALS,
)


def test_totals_are_those_of_the_run_with_what_failed_and_by_model() -> None:
    lines = [line.plain for line in summary_lines(FAILED, OutlineRows())]
    assert lines[0] == "status     ✗ failed"
    assert lines[-4:] == [
        "cost       ≥ $0.3; $0.1 of it in attempts that failed; "
        "no usage reported for 3 model calls, no known price for 2 model calls",
        "           a:big: 4 calls, 15 tokens, $0.3, no usage reported for 3 model calls",
        "           b:small: 2 calls, –, no known price for 2 model calls",
        "warning    2 texts truncated (max_tokens)",
    ]


def test_a_list_takes_a_query(ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*arguments: str) -> list[str]:
        found = json.loads(shown(capsys, "runs", "list", "--json", *arguments))
        return [run["id"] for run in found["runs"]]

    assert listed("status:failed since:1d") == [ids["failed"]]
    assert listed("--flow", "greet", "--", "-status:failed") == [ids["plain"], ids["kept"]]
    assert listed("trigger:job flow:fail -flow:greet", "--limit", "1") == [ids["failed"]]
    assert listed('error:"the reason"') == [ids["failed"]]
    assert main(["runs", "list", "flow:greet statsu:failed"]) != Exit.OK
    told = capsys.readouterr().err
    assert "query, character 12: `statsu:failed`: unknown field 'statsu'; did you mean 'status'?" in told


def test_a_list_of_nothing_says_so_and_where_texts_are_found(
    ids: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "list", "--since", "2100-01-01"]) == Exit.OK
    assert capsys.readouterr().err == "no run was found\n"
    assert main(["runs", "list", "text:nobody-wrote-this"]) == Exit.OK
    assert (
        "no run was found; inputs and outputs are searched only where they were kept"
        in capsys.readouterr().err
    )
    assert main(["runs", "list", "status:failed"]) == Exit.OK
    assert "no run" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "now"), (0, "now"), (59, "59 s ago"), (60, "1 min ago"), (7199, "1 h ago"), (200_000, "2 d ago")],
)
def test_how_long_ago_a_run_began(seconds: int, told: str) -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert formatting.age((now - timedelta(seconds=seconds)).isoformat(), now=now) == told
    assert formatting.age(None, now=now) == "–"


@pytest.mark.parametrize(
    ("status", "count", "totals", "told"),
    [
        ("completed", 4, RunTotals(completed=3, skipped=1), "3"),
        ("running", 40, RunTotals(completed=18), "18/40"),
        ("running", 4, RunTotals(completed=2000, failed=1, retried=2), "2,001 (2 retried)"),
        ("failed", 2, RunTotals(completed=1, failed=1, retried=1), "2 (1 retried)"),
        ("pending", 2, None, "–"),
    ],
)
def test_how_many_steps_a_run_ran(status: str, count: int, totals: RunTotals | None, told: str) -> None:
    run = RunSummary(id="r", flow_id="f", status=status, step_count=count, totals=totals)
    assert formatting.steps(run) == told


@pytest.mark.parametrize(
    ("status", "totals", "told"),
    [
        ("running", RunTotals(completed=18, skipped=2), "18/38"),
        ("paused", RunTotals(completed=41), "41"),
        ("failed", RunTotals(completed=18, failed=1), "19"),
    ],
)
def test_how_many_steps_a_run_with_loops_ran(status: str, totals: RunTotals, told: str) -> None:
    run = RunSummary(id="r", flow_id="f", status=status, step_count=3, expected_steps=40, totals=totals)
    assert formatting.steps(run) == told


def test_a_list_marks_runs_with_text_that_was_cut_and_costs_that_are_not_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_runs([FAILED])
    row = capsys.readouterr().out.splitlines()[1]
    assert "greet draft" in row
    assert "≥ $0.3" in row
    assert row.endswith(
        "PROVIDER_ERROR in step say: out of lines; 2 texts truncated (max_tokens);"
        " no usage reported for 3 model calls"
    )
    monkeypatch.setenv("COLUMNS", "100")
    print_runs([FAILED])
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith("000000aa  ✗ failed  greet draft")
    assert row.endswith("…")
    assert len(row) <= 100


def test_a_list_marks_a_run_that_completed_though_steps_failed(capsys: pytest.CaptureFixture[str]) -> None:
    totals = RunTotals(completed=1, failed=7)
    print_runs([RunSummary(id=FAILED.id, flow_id="f", status="completed", totals=totals)])
    assert capsys.readouterr().out.splitlines()[1].endswith("7 steps failed")


def test_a_list_has_the_beginning_of_inputs_and_results_below_runs_and_in_columns_of_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    completed = RunSummary(id="run-1", flow_id="f", status="completed")
    runs = [
        structs.replace(completed, input_preview="red \x1b[31m\u202e\nrow", result_preview="日本" * 100),
        structs.replace(completed, input_preview="x" * 200, result_preview="short"),
        structs.replace(completed, result_preview="no input"),
        structs.replace(FAILED, input_preview="what it was given"),
        completed,
    ]
    print_runs(runs)
    header, first, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["input", "result"]
    assert re.split(r" {2,}", first)[-2:] == ["red \ufffd[31m\ufffd row", "日本" * 100]
    assert len(rows) == 4

    monkeypatch.setenv("COLUMNS", "60")
    print_runs(runs)
    lines = capsys.readouterr().out.splitlines()
    below = [line for line in lines if line.startswith("  ")]
    assert below == [
        f"  red \ufffd[31m\ufffd row → {'日本' * 10}…",
        f"  {'x' * 49}… → short",
        "   → no input",
        "  what it was given",
    ]
    assert [lines.index(line) for line in below] == [2, 4, 6, 8]


def test_a_tail_says_that_a_text_was_cut() -> None:
    event = decode_event(
        b'{"eventType":"step_completed","executionId":"r","seq":1,"at":"","stepId":"say","stepIndex":0,'
        b'"attempt":1,"durationMs":1,"finishReason":"length"}'
    )
    assert EventLines().line(event).plain.endswith("text truncated (max_tokens)")


@pytest.mark.parametrize(("streamed", "said"), [(None, ""), (True, ""), (False, "not streamed: ")])
def test_a_model_call_is_not_said_to_come_in_one_piece_where_nobody_knows(
    streamed: bool | None, said: str
) -> None:
    call = ModelCall(number=1, model="a:big", streamed=streamed, note="the process ended")
    lines = [line.plain for line in attempt_lines(StepTrace(step_id="s", model_calls=(call,)))]
    assert lines[lines.index("model call 1  a:big") + 2] == f"             {said}the process ended"


def test_a_model_call_is_read_with_all_that_is_known_of_it() -> None:
    call = ModelCall(
        number=2,
        model="a:big",
        model_used="a:big-2026",
        duration_ms=1500,
        time_to_first_token_ms=200,
        streamed=False,
        note="the provider cannot",
        finish_reason="tool_call",
        request_id="req_1",
        tokens=TOKENS,
        cached_tokens=4,
        reasoning_tokens=0,
        cost_unknown="no_usage",
        request={
            "messages": [
                {"role": "user", "content": "one\ntwo", "attachments": [{"url": "https://a/b.png"}]},
                {"type": "reasoning", "id": "r1"},
                {"role": "assistant", "toolCalls": [{"function": {"name": "old", "arguments": "{}"}}]},
                {"role": "tool", "toolCallId": "c", "content": [{"type": "text", "text": "x"}]},
            ],
            "tools": [{"type": "function", "function": {"name": "weather"}}],
            "toolChoice": "auto",
        },
        response={
            "content": None,
            "toolCalls": [{"function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}],
        },
        truncated=True,
    )
    lines = [line.plain for line in attempt_lines(StepTrace(step_id="s", model_calls=(call,)))]
    assert lines[lines.index("model call 2  a:big-2026") :] == [
        "model call 2  a:big-2026",
        "  started    –, took 1.50 s, first token after 200 ms",
        "             not streamed: the provider cannot",
        "  tokens     10 prompt + 5 completion = 15 (4 cached, 0 reasoning)",
        "  cost       – (no usage reported)",
        "  finish     ended by tool_call",
        "  request id req_1",
        "  cut to fit: what follows is not all",
        "  user       one",
        "             two",
        '  images     [{"url":"https://a/b.png"}]',
        '  message    {"type":"reasoning","id":"r1"}',
        "  calls      old({})",
        '  tool       [{"type":"text","text":"x"}]',
        "  tools      weather",
        "  choice     auto",
        '  calls      weather({"city":"Ulm"})',
    ]


def test_a_cost_that_is_estimated_is_called_an_upper_bound() -> None:
    call = ModelCall(number=1, model="a:big", cost_usd="0.30", cost_estimated=True)
    lines = [line.plain for line in attempt_lines(StepTrace(step_id="s", model_calls=(call,)))]
    assert "  cost       at most $0.3" in lines
