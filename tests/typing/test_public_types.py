"""The public surface as a user's type checker sees it, overloads of `step_trace` included."""

from pathlib import Path

from mypy import api

PROGRAM = """
import uuid
from collections.abc import AsyncGenerator, Generator
from typing import Any, Literal, assert_type

import runglass
from runglass import (
    AsyncClient,
    AsyncFlow,
    AsyncRun,
    Client,
    CompletedResult,
    Flow,
    FlowCompleted,
    FlowExecutionError,
    RateLimitError,
    Run,
    RunPage,
    RunSummary,
    StepAttempts,
    StepCompleted,
    StepTrace,
    StreamEvent,
    TokenBreakdown,
    Trace,
    UnknownEvent,
)


def blocking(which: Literal["latest", "all"], number: int) -> None:
    with Client("nk_x", base_url="http://host/api/v1", org="o", project="p", timeout=None) as client:
        assert_type(client, Client)
        flow = client.flow("grade-3")
        assert_type(flow, Flow)
        assert_type(client.flow(org="o", project="p", slug="s"), Flow)
        assert_type(flow.execute(message="hi", version="draft", trace=True), CompletedResult)
        assert_type(flow.execute(parameters={"a": [1]}, version=3, timeout=float("inf")), CompletedResult)
        run = flow.run(uuid.uuid4())
        assert_type(run, Run)
        assert_type(client.run("id"), Run)
        assert_type(run.execution_id, str)
        assert_type(run.trace(timeout=1), Trace)
        assert_type(run.step_trace("s"), StepTrace)
        assert_type(run.step_trace("s", attempt="latest"), StepTrace)
        assert_type(run.step_trace("s", attempt=2, loop_index=0), StepTrace)
        assert_type(run.step_trace("s", attempt=number, loop_index=(0, 1)), StepTrace)
        assert_type(run.step_trace("s", attempt="all", loop_index=[0, 1]), StepAttempts)
        assert_type(run.step_trace("s", attempt=which), StepTrace | StepAttempts)
        assert_type(run.live_trace(), Generator[StreamEvent, None, None])
        assert_type(client.runs(status="failed", limit=5), RunPage)
        flow.execute(version="latest")  # type: ignore[arg-type]
        flow.execute("hi")  # type: ignore[call-arg]
        run.step_trace("s", attempt="first")  # type: ignore[call-overload]
        run.step_trace("s", loop_index="0")  # type: ignore[arg-type]
        client.runs(status="done")  # type: ignore[arg-type]
        runglass.Nothing  # type: ignore[attr-defined]


async def on_asyncio() -> None:
    async with AsyncClient() as client:
        assert_type(client, AsyncClient)
        flow = client.flow("o/p/s")
        assert_type(flow, AsyncFlow)
        assert_type(await flow.execute(message="hi"), CompletedResult)
        run = flow.run("id")
        assert_type(run, AsyncRun)
        assert_type(await run.trace(), Trace)
        assert_type(await run.step_trace("s"), StepTrace)
        assert_type(await run.step_trace("s", attempt=1), StepTrace)
        assert_type(await run.step_trace("s", attempt="all"), StepAttempts)
        assert_type(run.live_trace(), AsyncGenerator[StreamEvent, None])
        async for event in run.live_trace():
            assert_type(event.seq, int)
        assert_type(await client.runs(), RunPage)


def reading(trace: Trace, event: StreamEvent) -> None:
    assert_type(trace.flow_run, RunSummary)
    assert_type(trace.flow_run.duration_ms, int | None)
    step = trace.steps[0]
    assert_type(step.loop_index, int | None)
    assert_type(step.cost_usd, str | None)
    assert_type(step.tokens, TokenBreakdown | None)
    assert_type(step.input_context, dict[str, Any] | None)
    assert_type(step.truncated, bool)
    step.name  # type: ignore[attr-defined]
    step.attempt = 2  # type: ignore[misc]
    trace.total_cost_usd  # type: ignore[attr-defined]
    match event:
        case StepCompleted():
            assert_type(event.duration_ms, int)
        case FlowCompleted(result=result):
            assert_type(result, dict[str, Any] | None)
        case UnknownEvent():
            assert_type(event.data, dict[str, Any])


def failing() -> None:
    try:
        blocking("all", 1)
    except RateLimitError as error:
        assert_type(error.retry_after_s, float | None)
    except FlowExecutionError as error:
        assert_type(error.execution_id, str | None)
"""


def test_a_users_program_type_checks_and_its_mistakes_are_found(tmp_path: Path) -> None:
    """Unused ignores are errors under `--strict`, so each `type: ignore` proves that its line is refused."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    report, errors, status = api.run(
        [
            "--strict",
            "--no-error-summary",
            "--config-file=",
            f"--cache-dir={tmp_path / 'cache'}",
            str(program),
        ]
    )
    assert (report, errors, status) == ("", "", 0)
