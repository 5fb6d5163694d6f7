"""What goes on in a run, as its events tell: lines that stay, and lines that change."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from runglass.cli.terminal.output import clean
from runglass.cli.terminal.run_progress import MOST_LINES, MOST_OF_A_STEP, RunProgress
from runglass.log.events import decode_event

START = datetime(2026, 1, 1, tzinfo=UTC)
STARTED: dict[str, Any] = {
    "runId": "r",
    "flowId": "f",
    "flowSlug": "orders",
    "stepCount": 4,
    "triggerType": "job",
    "version": 2,
}


class Watched:
    """A run whose events come one after the other, each some milliseconds after the start."""

    def __init__(self) -> None:
        self.progress = RunProgress()
        self.stayed: list[str] = []
        self._seq = 0
        self._now_ms = 0
        self.event("run_started", **STARTED)

    def event(self, kind: str, *, at_ms: int | None = None, **fields: Any) -> None:
        self._seq += 1
        self._now_ms = self._now_ms if at_ms is None else at_ms
        at = (START + timedelta(milliseconds=self._now_ms)).isoformat()
        data = {"eventType": kind, "executionId": "r", "seq": self._seq, "at": at, **fields}
        if kind.startswith("step_") and "stepIndex" not in fields:
            data["stepIndex"] = 0
        self.stayed += [line.plain for line in self.progress.add(decode_event(msgspec.json.encode(data)))]

    def begin(self, step: str, *path: int, attempt: int = 1, at_ms: int | None = None) -> None:
        self.event("step_started", stepId=step, attempt=attempt, at_ms=at_ms, **in_loop(path))

    def complete(self, step: str, *path: int, at_ms: int | None = None) -> None:
        self.event("step_completed", stepId=step, attempt=1, durationMs=1, at_ms=at_ms, **in_loop(path))

    def lines(self, *, width: int = 100, most: int = MOST_LINES, at_ms: int | None = None) -> list[str]:
        now = START + timedelta(milliseconds=self._now_ms if at_ms is None else at_ms)
        return [line.plain for line in self.progress.lines(now=now, width=width, most=most)]


def in_loop(path: tuple[int, ...]) -> dict[str, Any]:
    return {"loopPath": path, "loopIndex": path[-1]} if path else {}


@pytest.fixture
def run() -> Watched:
    return Watched()


def test_a_step_counts_up_while_it_goes_on_and_stays_once_it_has_ended(run: Watched) -> None:
    run.begin("ask")
    assert run.lines(at_ms=2300) == [
        "▷ orders v2  ██░░░░░░░░ 1/4 steps begun  2.3 s",
        "  ▷ ask  2.3 s",
    ]
    call = {
        "number": 1,
        "model": "m",
        "tokens": {"prompt": 7, "completion": 5, "total": 12},
        "costUsd": "0.01",
    }
    run.event("step_model_call", stepId="ask", attempt=1, modelCall=call)
    run.event("step_progress", stepId="ask", attempt=1, text="Once upon\na time")
    head, step = run.lines(at_ms=61_000)
    assert head.endswith("1 m 01 s  12 tokens  $0.01")
    assert step == "  ▷ ask  1 m 01 s  12 tokens  …Once upon a time"
    assert len(run.stayed) == 1
    run.complete("ask")
    assert run.stayed[1:] == ["  +0.000 s  ✓ ask                 completed in 1 ms"]
    assert len(run.lines()) == 1


def test_iterations_of_a_step_are_one_line_with_counts(run: Watched) -> None:
    for at in range(20):
        run.begin("look", at)
        if at < 14:
            run.complete("look", at)
    assert run.lines(at_ms=1500)[1:] == ["  ▷ look  14 done  6 running 1.5 s  [14] [15] [16] [17] …"]


def test_a_loop_has_a_bar_of_the_iterations_that_have_begun(run: Watched) -> None:
    run.event("loop_started", stepId="each", iterations=40, stepIds=["look", "rest"])
    assert run.lines()[1:] == ["  ⟳ each  ░░░░░░░░░░ 0 of 40 iterations begun"]
    for at in range(18):
        run.begin("look", at)
        run.complete("look", at)
    run.begin("beside", 25)
    run.event("step_skipped", stepId="rest", attempt=1, reason="", **in_loop((18,)))
    run.event("loop_started", stepId="inner", iterations=3, stepIds=["rest"], **in_loop((18,)))
    assert run.lines()[1] == "  ⟳ each  ████░░░░░░ 19 of 40 iterations begun"
    assert run.lines(width=50)[1] == "  ⟳ each  19 of 40 iterations begun"
    run.event("loop_completed", stepId="each", iterations=40)
    assert not any("⟳" in line for line in run.lines())
    assert not any("loop started" in line for line in run.stayed)


def test_a_loop_that_failed_has_no_bar_once_the_run_goes_on_behind_it(run: Watched) -> None:
    run.event("loop_started", stepId="each", iterations=40, stepIds=["look"])
    run.begin("look", 0)
    run.begin("beside")
    assert any("1 of 40" in line for line in run.lines())
    run.event("step_started", stepId="after", stepIndex=1, attempt=1)
    assert not any("⟳" in line for line in run.lines())


def test_an_empty_loop_has_a_full_bar(run: Watched) -> None:
    run.event("loop_started", stepId="each", iterations=0, stepIds=["look"])
    assert run.lines()[1:] == ["  ⟳ each  ██████████ 0 of 0 iterations begun"]


def test_many_lines_about_one_step_in_a_loop_are_counted(run: Watched) -> None:
    for at in range(500):
        run.begin("look", at)
        run.complete("look", at)
    assert len(run.stayed) == 1 + MOST_OF_A_STEP + 1
    assert run.stayed[-1].strip() == "… further ones of look (completed) are counted"
    run.begin("look", 500)
    run.event("step_error", stepId="look", attempt=1, error={"code": "X"}, **in_loop((500,)))
    assert "✗ look [500]" in run.stayed[-1]


def test_a_wait_for_the_next_attempt_counts_down(run: Watched) -> None:
    run.begin("ask", at_ms=100)
    retrying: dict[str, Any] = {"attempt": 1, "nextAttempt": 2, "error": {"code": "BUSY", "message": "later"}}
    run.event("step_retrying", stepId="ask", delayMs=2000, at_ms=200, **retrying)
    assert run.lines(at_ms=700)[1] == "  ↻ ask  attempt 2 in 1.5 s: BUSY: later"
    assert run.lines(at_ms=9000)[1] == "  ↻ ask  attempt 2 begins: BUSY: later"
    run.begin("ask", attempt=2, at_ms=2200)
    assert run.lines(at_ms=2300)[1] == "  ▷ ask  attempt 2  0.1 s"


def test_retries_in_a_loop_say_when_the_next_one_is(run: Watched) -> None:
    for at in range(3):
        run.begin("look", at, at_ms=0)
        retrying: dict[str, Any] = {"attempt": 1, "nextAttempt": 2, "error": {"code": "BUSY"}}
        run.event("step_retrying", stepId="look", delayMs=1000 * (at + 1), **retrying, **in_loop((at,)))
    assert run.lines()[1] == "  ↻ look  3 retried  3 attempts to come, attempt 2 in 1.0 s"


def test_a_paused_run_says_what_it_waits_for(run: Watched) -> None:
    run.begin("ask")
    calls = [{"function": {"name": "weather"}}, {"function": {"name": "tide"}}]
    paused: dict[str, Any] = {
        "iterationsUsed": 1,
        "toolCallMessages": [],
        "accumulatedOutputs": {},
        "runId": "r",
    }
    run.event("step_paused_for_tool_calls", stepId="ask", toolCalls=calls, **paused)
    assert run.lines(at_ms=0)[1].startswith(
        "  ‖ ask  waiting for the results of 2 tool calls: weather, tide  0.0 s"
    )
    run.event("step_resumed", stepId="ask", attempt=1)
    assert run.lines()[1].startswith("  ▷ ask")


def test_a_step_through_waits_for_its_next_call(run: Watched) -> None:
    run.begin("ask")
    run.complete("ask")
    run.event("step_paused", stepId="ask")
    assert run.lines()[1] == "  ‖ after ask: waiting for the next call of the step-through"


def test_there_are_never_more_lines_than_asked_for(run: Watched) -> None:
    for at in range(30):
        run.begin(f"step-{at}")
    lines = run.lines()
    assert len(lines) == MOST_LINES
    assert lines[-1] == "  … and 22 steps more"
    assert len(run.lines(most=2)) == 2
    assert len(run.lines(most=1)) == 1


@pytest.mark.parametrize("width", [10, 39, 79, 199])
def test_lines_fit_the_width_whatever_is_in_them(run: Watched, width: int) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J漢字かな交じり文\u202e\u200b\r\n" * 3
    run.begin(hostile, at_ms=0)
    run.event("step_progress", stepId=hostile, attempt=1, text=hostile)
    run.begin(hostile, 3)
    for line in run.lines(width=width):
        assert cell_len(line) <= width
        assert clean(line) == line
        assert "\n" not in line


def test_a_thousand_events_take_no_room(run: Watched) -> None:
    for at in range(500):
        run.begin("look", at)
        run.complete("look", at)
    assert len(run.stayed) < 20
    assert len(run.lines()) == 1
