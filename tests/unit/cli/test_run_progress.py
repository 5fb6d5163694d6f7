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


class Watched:
    """A run whose events come one after the other, each some milliseconds after the start."""

    def __init__(self) -> None:
        self.progress = RunProgress()
        self.stayed: list[str] = []
        self._seq = 0
        self._now_ms = 0
        of_flow: dict[str, Any] = {"flowId": "f", "flowSlug": "orders", "version": 2, "stepCount": 4}
        self.event("run_started", runId="r", triggerType="job", **of_flow)

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

    def complete(self, step: str, *path: int) -> None:
        self.event("step_completed", stepId=step, attempt=1, durationMs=1, **in_loop(path))

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
    assert run.lines(at_ms=2300) == ["▷ orders v2  2.3 s  steps 0/4", "  ▷ ask  2.3 s  "]
    tokens = {"prompt": 7, "completion": 5, "total": 12}
    call = {"number": 1, "model": "m", "tokens": tokens, "costUsd": "0.01"}
    run.event("step_model_call", stepId="ask", attempt=1, modelCall=call)
    run.event("step_progress", stepId="ask", attempt=1, text="Once upon\na time")
    head, step = run.lines(at_ms=61_000)
    assert head.endswith("1 m 01 s  steps 0/4  12 tokens  $0.01")
    assert step == "  ▷ ask  1 m 01 s  …Once upon a time"
    assert len(run.stayed) == 1
    run.complete("ask")
    assert run.stayed[1:] == ["  +0.000 s  ✓ ask                 completed in 1 ms"]
    assert len(run.lines()) == 1


def test_steps_are_named_by_their_iterations(run: Watched) -> None:
    run.begin("look", 18, 2)
    run.begin("look", 18, 3)
    assert [line.split("  ")[1] for line in run.lines()[1:]] == ["▷ look [18.2]", "▷ look [18.3]"]


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
    (step,) = run.lines(at_ms=700)[1:]
    assert step.startswith("  ↻ ask  ")
    assert step.endswith("  attempt 2 in 1.5 s: BUSY: later")
    assert run.lines(at_ms=9000)[1].endswith("  attempt 2 begins: BUSY: later")
    run.begin("ask", attempt=2, at_ms=2200)
    assert run.lines(at_ms=2300)[1].startswith("  ▷ ask  0.1 s  attempt 2")


def test_a_paused_run_says_what_it_waits_for(run: Watched) -> None:
    run.begin("ask")
    calls = [{"function": {"name": "weather"}}, {"function": {"name": "tide"}}]
    paused: dict[str, Any] = {"iterationsUsed": 1, "toolCallMessages": [], "accumulatedOutputs": {}}
    run.event("step_paused_for_tool_calls", runId="r", stepId="ask", toolCalls=calls, **paused)
    (step,) = run.lines(at_ms=0)[1:]
    assert step == "  ‖ ask  0.0 s  waiting for the results of 2 tool calls: weather, tide"
    run.event("step_resumed", stepId="ask", attempt=1)
    assert run.lines()[1].startswith("  ▷ ask")


def test_there_are_never_more_lines_than_asked_for(run: Watched) -> None:
    for at in range(30):
        run.begin(f"step-{at}")
    assert run.lines()[-1] == "  … and 20 more steps"
    for most in (MOST_LINES, 7, 3, 2, 1):
        assert len(run.lines(most=most)) <= most


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
