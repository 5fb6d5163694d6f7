"""A recorded run on a terminal: its tree of spans, what its sender tells of it, and its events."""

import re

from msgspec import Raw
from msgspec.structs import replace

from runglass.cli.argument_parsers import step_id
from runglass.cli.commands.show_run import failed_attempts, largest_attempts
from runglass.cli.terminal.event_lines import EventLines
from runglass.cli.terminal.outline_rows import OutlineRows
from runglass.cli.terminal.run_view import step_arguments
from runglass.cli.terminal.step_view import attempt_lines
from runglass.log.events import StepRecorded
from runglass.log.span_state import SpanState
from runglass.log.trace import ModelCall, Recording, RunSummary, RunTotals, StepTrace, TokenBreakdown
from tests.unit.cli.test_run_overview import read_rows, shown
from tests.unit.test_span_outline import Span, outline_of

CALL = Span(5, 3, 1100, 1700, "chat gpt-4o", "llm", tokens=1200, cost="0.01", model="gpt-4o-2024-08-06")
SPANS = [
    CALL,
    Span(4, 3, 100, 1000, "chat gpt-4o", "llm", "failed", model="gpt-4o-2024-08-06"),
    Span(6, 3, 1700, 1900, "search", "tool", notes=("dropped 2 attributes",)),
    Span(3, 2, 100, 2000, "answer ticket", "agent", tokens=1500, cost="0.0125"),
    Span(2, None, 0, 2000, "POST /tickets", "other"),
    Span(8, 77, 1950, None, "follow-up", "chain", "running"),
]
ROWS = read_rows(outline_of(SPANS, entry=3), limit=2)
RUN = RunSummary(
    id="0198c0de-0000-7000-8000-0000000000aa",
    flow_id="f",
    status="running",
    trigger_type="recorded",
    flow_slug="tickets",
    version=0,
    session_id="0198c0de-0000-5000-8000-0000000000bb",
    started_at="2026-01-01T00:00:00.000000Z",
    totals=RunTotals(completed=4, failed=1, unmetered_calls=1, cost_usd="0.01"),
    recording=Recording(
        trace_id="0af7651916cd43dd8448eb211c80319c",
        name="answer ticket",
        entry_ended=True,
        session="thread-7",
        user="ada",
        tags=("beta", "refund"),
        service="tickets",
        release="1.4.2",
        environment="staging",
        continues="0198c0de-0000-7000-8000-000000000001",
        notes=("parents that were not received: 1",),
    ),
)


def test_its_tree_tells_kinds_models_retries_and_what_no_sum_has() -> None:
    lines = shown(RUN, ROWS, width=150)
    tree = [line for line in lines[lines.index("") + 2 :] if not line.startswith(" " * 8)]
    assert [re.split(" *[━─╶╺]", line)[0] for line in tree] == [
        "✓ POST /tickets  context",
        "  ✓ answer ticket  agent, unattributed: 300 tokens, $0.0025",
        "    ↻ chat gpt-4o  llm, gpt-4o-2024-08-06",
        "    ✓ chat gpt-4o  llm, gpt-4o-2024-08-06, retry of chat_gpt-4o [1]",
        "    ✓ search  tool, see its notes",
        "▷ not received",
        "  ▷ follow-up  chain",
    ]


def test_a_run_a_thousand_levels_deep_fits_the_terminal() -> None:
    spans = [Span(at, at - 1 or None, at, at + 1, "call", "tool") for at in range(1, 1500)]
    deep = read_rows(outline_of(spans), limit=2)
    lines = shown(RUN, deep, width=80, most=60)
    assert max(map(len, lines)) <= 80
    assert any("inside …" in line for line in lines)


def test_its_header_tells_what_its_sender_told_and_how_far_it_is() -> None:
    lines = shown(RUN, ROWS)
    for line in (
        "end        entry ended, waiting for the end of the run",
        "trace      0af7651916cd43dd8448eb211c80319c",
        "service    tickets, release 1.4.2, environment staging",
        "session    thread-7",
        "user       ada",
        "tags       beta, refund",
        "continues  0198c0de-0000-7000-8000-000000000001",
        "note       parents that were not received: 1",
        "flow       tickets: answer ticket",
        "cost       ≥ $0.01; no usage reported for 1 model call",
    ):
        assert line in lines
    assert "next run   00bb" in shown(replace(RUN, status="completed", continued_by="00bb"), ROWS)


def test_what_failed_or_cost_most_is_named_as_runs_step_takes_it() -> None:
    assert [step_arguments(ROWS, row) for row in failed_attempts(ROWS)] == ["chat_gpt-4o --loop 1"]
    assert step_id("chat gpt-4o") == "chat_gpt-4o"
    assert [step_arguments(ROWS, row) for row in largest_attempts(ROWS, 5, OutlineRows.cost_usd)] == [
        "chat_gpt-4o --loop 0"
    ]


def test_a_recorded_step_tells_its_span_and_its_attributes() -> None:
    tokens = TokenBreakdown(10, 2, 12)
    call = ModelCall(
        number=1, model="o3", tokens=tokens, cache_write_tokens=4, cost_usd="0.1", list_cost_usd="0.2"
    )
    step = StepTrace(
        step_id="chat_gpt-4o",
        loop_path=(2,),
        status="completed",
        name="chat gpt-4o",
        kind="llm",
        span_id="00000000000000aa",
        parent_span_id="00000000000000bb",
        scope="openinference",
        attributes={"http.route": "/x", "runglass.attempt": 2},
        links=[{"traceId": "t"}],
        notes=("dropped 2 attributes",),
        model_calls=(call,),
    )
    lines = [line.plain for line in attempt_lines(step)]
    for line in (
        "step       chat_gpt-4o",
        "name       chat gpt-4o",
        "kind       llm",
        "span       00000000000000aa",
        "parent     00000000000000bb",
        "attempt    2, named by --loop 2",
        "scope      openinference",
        "note       dropped 2 attributes",
        "number     2",
        "attributes 2 attributes",
        '    "http.route": "/x",',
        "links      1 link",
        "  tokens     10 prompt + 2 completion = 12 (4 written to the cache)",
        "  request    not kept, or its sender did not send it",
        "  cost       $0.1 ($0.2 by our prices)",
    ):
        assert line in lines


def test_a_step_tells_what_its_model_was_asked_and_answered_and_what_that_cost() -> None:
    asked = {"system": "be brief", "messages": [{"role": "user", "content": "Hello\nyou"}]}
    call = ModelCall(
        number=1, model="echo", request=asked, response={"content": "Hi"}, cost_unknown="no_price"
    )
    estimated = ModelCall(number=2, model="echo", request=asked, cost_usd="0.30", cost_estimated=True)
    lines = [line.plain for line in attempt_lines(StepTrace(step_id="say", model_calls=(call, estimated)))]
    first, second = lines.index("model call 1  echo"), lines.index("model call 2  echo")
    told = ("cost  ", "system", "user  ", "      ", "answer")
    assert [line for line in lines[first:second] if line[2:8] in told] == [
        "  cost       – (no known price)",
        "  system     be brief",
        "  user       Hello",
        "             you",
        "  answer     Hi",
    ]
    assert "  cost       at most $0.3" in lines[second:]


def test_a_traceback_is_shown_line_by_line() -> None:
    error = {"code": "OSError", "traceback": "Traceback:\n  connect()\x1b[2J\nOSError: no"}
    step = StepTrace(step_id="connect", status="failed", error_context=error)
    *_, facts, traceback, call, last = (line.plain for line in attempt_lines(step))
    assert (facts, traceback, last) == ("  }", "  Traceback:", "  OSError: no")
    assert call == "    connect()\ufffd[2J"


def test_its_events_are_lines() -> None:
    def line(span: SpanState) -> str:
        event = StepRecorded(
            execution_id="r", at="2026-01-01T00:00:00.000Z", step_id="chat", loop_path=(0,), span=span
        )
        return EventLines().line(event).plain.partition(" s  ")[2]

    begun = SpanState(span_id="aa", name="chat gpt-4o", kind="llm", start_time_unix_nano="1000000")
    assert line(begun) == "▷ chat [0]            running: chat gpt-4o (llm)"
    usage = {"tokens": TokenBreakdown(10, 2, 12), "cost_usd": "0.1", "model_used": "o3"}
    ended = replace(begun, end_time_unix_nano="5000000", **usage)
    assert line(ended) == "✓ chat [0]            chat gpt-4o (llm), o3, 4 ms, 12 tokens, $0.1"
    failed = replace(ended, status="error", error=Raw(b'{"code":"TIMEOUT","message":"too late"}'))
    assert line(failed).endswith("failed: chat gpt-4o (llm), o3, 4 ms, 12 tokens, $0.1: TIMEOUT: too late")
