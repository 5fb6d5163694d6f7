"""Finding a run in the terminal and reading what it came to: lists, short ids, totals, model calls."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runglass import Client
from runglass.cli import argument_parsers
from runglass.cli.backends import server as server_backend
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal.step_view import attempt_lines
from runglass.cli.terminal.table import print_runs
from runglass.log.trace import (
    ModelCall,
    ModelTotals,
    RunError,
    RunSummary,
    RunTotals,
    StepTrace,
    TokenBreakdown,
)
from runglass.testing import RunningServer
from tests.e2e.conftest import Printed
from tests.servers import server_with

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


server = server_with(FLOW, SECRET, FAILING, ENDLESS)


pytestmark = pytest.mark.usefixtures("connected")


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


def test_a_list_names_flow_version_cost_and_error_and_its_short_ids_are_understood(
    ids: dict[str, str], printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    header, *rows = printed("runs", "list").out.splitlines()
    assert header.split() == [
        *("run", "status", "flow", "started", "duration", "steps", "tokens", "cost", "trigger", "remarks")
    ]
    cells = {row.split()[0]: re.split(r" {2,}", row) for row in rows}
    for kind, run_id in ids.items():
        short = run_id[-8:]
        assert short in cells, kind
        assert f"run        {run_id}" in printed("runs", "show", short).out.splitlines()
    assert cells[ids["failed"][-8:]][1:3] == ["✗ failed", "fail v1"]
    assert cells[ids["failed"][-8:]][-1] == "CODE_ERROR in step broken: ValueError: the reason (line 1)"
    assert cells[ids["kept"][-8:]][-1] == "with overrides"
    assert cells[ids["kept"][-8:]][5].endswith(" (1 retried)")
    assert re.fullmatch(r"now|\d+ (s|min) ago", cells[ids["plain"][-8:]][3])
    assert cells[ids["plain"][-8:]][2] == "greet v1"
    assert cells[ids["plain"][-8:]][-1] == "job"


def test_a_piped_list_has_whole_ids(ids: dict[str, str], printed: Printed) -> None:
    rows = printed("runs", "list").out.splitlines()[1:]
    assert set(ids.values()) <= {row.split()[0] for row in rows}


def test_a_list_may_be_of_what_failed_lately_and_of_a_flow(ids: dict[str, str], printed: Printed) -> None:
    def listed(*arguments: str) -> list[str]:
        found = json.loads(printed("runs", "list", "--json", *arguments).out)
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
    printed("runs", "list", "--failed", "--status", "completed", code=Exit.USAGE)
    assert "2026-11-20" in printed("runs", "list", "--since", "soon", code=Exit.USAGE).err


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


def test_a_name_that_is_no_run_or_several_says_what_to_write(ids: dict[str, str], printed: Printed) -> None:
    for name, code, message in (
        ("abc", Exit.USAGE, "at least 4 characters"),
        ("newest", Exit.USAGE, "does not name a run"),
        (ids["kept"][:6], Exit.USAGE, f"write more of the one you mean:\n  {ids['failed']}"),
        ("ffffffff", Exit.NOT_FOUND, "ends or begins with 'ffffffff'"),
    ):
        for command in (["show"], ["tail"], ["step"]):
            more = ["say"] if command == ["step"] else []
            assert message in printed("runs", *command, name, *more, code=code).err


def test_a_run_is_cancelled_once_and_then_has_its_status(ids: dict[str, str], printed: Printed) -> None:
    with Client() as client:
        run_id = client.flow("acme/demo/endless").execute_async().execution_id
    assert printed("runs", "cancel", run_id).out == f"run {run_id} is cancelled\n"
    err = printed("runs", "cancel", run_id, code=Exit.FAILED).err
    assert "has ended already; its status is cancelled" in err
    assert "its status is completed" in printed("runs", "cancel", ids["plain"], code=Exit.FAILED).err


def test_step_shows_what_the_model_was_asked_and_answered(ids: dict[str, str], printed: Printed) -> None:
    text = printed("runs", "step", ids["kept"], "say").out
    call = text[text.index("model call 1  echo") :].splitlines()
    for line in ("  system     be brief", "  user       Hello you", "  answer     Hello you"):
        assert line in call
    assert "  cost       – (no known price)" in call
    whole = json.loads(printed("runs", "step", ids["kept"], "say", "--json").out)
    assert whole["modelCalls"][0]["request"]["system"] == "be brief"


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


def test_a_list_takes_a_query(ids: dict[str, str], printed: Printed) -> None:
    def listed(*arguments: str) -> list[str]:
        found = json.loads(printed("runs", "list", "--json", *arguments).out)
        return [run["id"] for run in found["runs"]]

    assert listed("status:failed since:1d") == [ids["failed"]]
    assert listed("--flow", "greet", "--", "-status:failed") == [ids["plain"], ids["kept"]]
    assert listed("trigger:job flow:fail -flow:greet", "--limit", "1") == [ids["failed"]]
    assert listed('error:"the reason"') == [ids["failed"]]
    told = printed("runs", "list", "flow:greet statsu:failed", code=Exit.FAILED).err
    assert "query, character 12: `statsu:failed`: unknown field 'statsu'; did you mean 'status'?" in told


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


def test_a_cost_that_is_estimated_is_called_an_upper_bound() -> None:
    call = ModelCall(number=1, model="a:big", cost_usd="0.30", cost_estimated=True)
    lines = [line.plain for line in attempt_lines(StepTrace(step_id="s", model_calls=(call,)))]
    assert "  cost       at most $0.3" in lines
