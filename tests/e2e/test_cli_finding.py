"""Finding runs in the terminal and reading what they came to: lists, short ids, totals, differences."""

import json
import re
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from runglass import Client
from runglass.cli import argument_parsers
from runglass.cli.commands.runs import diff_lines
from runglass.cli.exit_codes import Exit, UsageError
from runglass.cli.terminal.table import print_runs
from runglass.diff.run_diff import FieldChange, RowDiff, RunDiff, ValueChange
from runglass.log.trace import RunError, RunSummary, RunTotals
from tests.contract.wire import BROKEN, ran
from tests.e2e.conftest import Printed
from tests.e2e.test_cli_runs import FLOW
from tests.e2e.test_client import WALK
from tests.servers import server_with

SECRET = FLOW.replace("slug: greet", "slug: secret\ncapture: 'off'")

server = server_with(FLOW, SECRET, BROKEN, f"capture: full\n{WALK}")


pytestmark = pytest.mark.usefixtures("connected")


@pytest.fixture(scope="module")
def ids(http: httpx2.Client) -> dict[str, str]:
    """A run of each kind, the oldest first."""
    overrides = {"say": {"system": "be brief"}}
    return {
        "kept": ran(http, "greet", message="you", trace=True, blockOverrides=overrides),
        "plain": ran(http, "greet", message="you"),
        "off": ran(http, "secret", message="you", trace=True),
        "failed": ran(http, "broken"),
    }


def test_a_list_names_flow_version_cost_and_error_and_its_short_ids_are_understood(
    ids: dict[str, str], printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = printed("runs", "list").out.splitlines()[1:]
    assert set(ids.values()) <= {row.split()[0] for row in piped}, "its ids are whole"
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
    assert cells[ids["failed"][-8:]][1:3] == ["✗ failed", "broken v1"]
    assert cells[ids["failed"][-8:]][-1] == "CODE_ERROR in step bad: ValueError: it broke (line 1)"
    assert cells[ids["kept"][-8:]][-1] == "with overrides"
    assert cells[ids["kept"][-8:]][5].endswith(" (1 retried)")
    assert re.fullmatch(r"now|\d+ (s|min) ago", cells[ids["plain"][-8:]][3])
    assert cells[ids["plain"][-8:]][2] == "greet v1"
    assert cells[ids["plain"][-8:]][-1] == "api"


def test_a_list_may_be_of_a_query_of_what_failed_lately_and_of_a_flow(
    ids: dict[str, str], printed: Printed
) -> None:
    def listed(*arguments: str) -> list[str]:
        found = json.loads(printed("runs", "list", "--json", *arguments).out)["runs"]
        return [run["id"] for run in found]

    assert listed("--failed") == listed("--status", "failed") == [ids["failed"]]
    assert listed("--flow", "greet") == listed("--flow", "acme/demo/greet") == [ids["plain"], ids["kept"]]
    assert set(listed("--since", "1d")) >= set(ids.values())
    assert listed("--since", "2100-01-01") == []
    printed("runs", "list", "--failed", "--status", "completed", code=Exit.USAGE)
    assert "2026-11-20" in printed("runs", "list", "--since", "soon", code=Exit.USAGE).err
    assert listed('error:"broke it"') == []
    assert listed("status:failed since:1d") == [ids["failed"]]
    assert listed("--flow", "greet", "--", "-status:failed") == [ids["plain"], ids["kept"]]
    assert listed("trigger:api flow:broken -flow:greet", "--limit", "1") == [ids["failed"]]
    told = printed("runs", "list", "flow:greet statsu:failed", code=Exit.FAILED).err
    assert "query, character 12: `statsu:failed`: unknown field 'statsu'; did you mean 'status'?" in told


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


def test_a_name_that_is_no_run_or_several_says_what_to_write(ids: dict[str, str], printed: Printed) -> None:
    for name, code, message in (
        ("abc", Exit.USAGE, "at least 4 characters"),
        ("newest", Exit.USAGE, "does not name a run"),
        (ids["kept"][:6], Exit.USAGE, "write more of the one you mean:\n  "),
        (ids["kept"][:6], Exit.USAGE, f"\n  {ids['failed']}\n  {ids['off']}\n  {ids['plain']}"),
        ("ffffffff", Exit.NOT_FOUND, "ends or begins with 'ffffffff'"),
    ):
        for command in (["show"], ["tail"], ["step"]):
            more = ["say"] if command == ["step"] else []
            assert message in printed("runs", *command, name, *more, code=code).err


FAILED = RunSummary(
    id="0198c0de-0000-7000-8000-0000000000aa",
    flow_id="f",
    status="failed",
    flow_slug="greet",
    version=0,
    trigger_type="job",
    error=RunError(code="PROVIDER_ERROR", step_id="say", message="out of\nlines"),
    totals=RunTotals(cost_usd="0.30", unmetered_calls=3, finish_reasons={"length": 2, "stop": 4}),
)


def test_a_list_marks_runs_with_text_that_was_cut_and_costs_that_are_not_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_runs([FAILED])
    row = capsys.readouterr().out.splitlines()[1]
    assert "greet draft" in row
    assert "≥ $0.3  job  " in row
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


def test_runs_that_are_the_same_end_with_0_and_others_with_1_and_each_change(
    client: Client, printed: Printed
) -> None:
    two = [client.flow("walk").execute(message=each).execution_id for each in ("a gut", "a good")]
    out, err = printed("runs", "diff", "last", two[1])
    assert err == "attempts that differ: 0; that are the same: 4\n"
    *_, empty, last = out.splitlines()
    assert (empty, last) == ("", "the runs are the same")

    lines = printed("runs", "diff", *two, code=Exit.FAILED).out.splitlines()
    for which, run, line in zip(("first run", "second run"), two, lines, strict=False):
        assert line.startswith(f"{which:<12}{run}  walk v1  completed  ")
    assert [" ".join(line.split()) for line in lines[3:] if "duration" not in line] == [
        'first divergence first: input differs at message: "a gut" / "a good"',
        "",
        "first",
        'input differs at message: "a gut" / "a good"',
        'output differs at words[1]: "gut" / "good"',
        "shout[1]",
        'input differs at word: "gut" / "good"',
        'output differs at text: "GUT" / "GOOD"',
        "last",
        'input differs at items[1].text: "GUT" / "GOOD"',
        'output differs at texts[1]: "GUT" / "GOOD"',
    ]
    assert "shout[0]" in printed("runs", "diff", *two, "--all", code=Exit.FAILED).out, "it is the same"
    found = json.loads(printed("runs", "diff", *two, "--json", code=Exit.FAILED).out)
    assert (found["same"], found["differentRows"]) == (False, 3)
    assert found["firstDivergence"]["stepId"] == "first"


def test_what_runs_hold_cannot_look_like_a_line_of_ours() -> None:
    place = ValueChange(path='["\\u001b[2J"]', kind="changed", a="x\n\x1b[31mfake", b="\u202e")
    row = RowDiff(step_id="s", changes=[FieldChange(field="output", paths=[place])])
    run = RunSummary(id="r", flow_id="f", status="completed")
    lines = list(diff_lines(RunDiff(a=run, b=run, same=False, flows="same", cut=True, rows=[row])))
    assert [line.plain for line in lines[-2:]] == [
        "s",
        '  output differs at ["\\u001b[2J"]: "x\\n\\u001b[31mfake" / "\ufffd"',
    ]
    assert not {"\x1b", "\n", "\u202e"} & set("".join(str(line) for line in lines))
