"""The public surface as a user's type checker sees it, overloads of `step_trace` included."""

from pathlib import Path

from mypy import api

PROGRAM = """
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Literal, assert_type

import runglass
from runglass import *

ToolHandler = Callable[[str, dict[str, Any]], Any]
TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def weather(name: str, arguments: dict[str, Any]) -> dict[str, float]:
    return {"rain": 0.5}


async def async_weather(name: str, arguments: dict[str, Any]) -> str:
    return "dry"


def going_on(flow: Flow, tools: list[dict[str, Any]] | None, either: ToolHandler | None) -> None:
    picture = Attachment(url="https://host/a.png", mime_type="image/png")
    turns = [{"role": "user", "content": "hi"}]
    assert_type(flow.execute(messages=turns, attachments=[picture]), CompletedResult)
    assert_type(flow.execute(message="hi", tools=TOOLS, tool_handler=weather), CompletedResult)
    assert_type(flow.execute(tools=tools, tool_handler=weather, max_tool_rounds=2), CompletedResult)
    assert_type(flow.execute(message="hi", session_id=uuid.uuid4()), CompletedResult)
    paused = flow.execute(message="hi", tools=TOOLS, tool_choice="required")
    assert_type(paused, CompletedResult | PausedResult)
    assert_type(flow.execute(tools=tools, tool_handler=either), CompletedResult | PausedResult)
    if isinstance(paused, PausedResult):
        assert_type(paused.tool_calls, list[ToolCall])
        assert_type(paused.tool_calls[0].arguments, dict[str, Any])
        assert_type(paused.resume({"c1": 1}), CompletedResult | PausedResult)
        assert_type(paused.resume([{"toolCallId": "c1", "content": "1"}]), CompletedResult | PausedResult)
    assert_type(flow.steps(message="hi", version=2), Generator[StepResult, None, None])
    assert_type(flow.events(tools=TOOLS, tool_handler=weather), Generator[StreamEvent, None, None])
    for step in flow.steps(run_remaining=True):
        assert_type(step.output, dict[str, Any] | None)
        step.replace_output({"text": "x"})
        step.output = {}  # type: ignore[misc]
    job = flow.execute_async(message="hi")
    assert_type(job, Job)
    assert_type(job.poll(), JobState)
    assert_type(job.wait(timeout=5, poll_interval=0.5), Any)
    assert_type(job.run.wait(), RunSummary)
    assert_type(flow.runs(status="paused", limit=50), Generator[RunSummary, None, None])
    job.run.cancel()
    flow.execute(tools=TOOLS, tool_handler="weather")  # type: ignore[call-overload]
    flow.execute_async(tools=TOOLS)  # type: ignore[call-arg]
    flow.runs(status="done")  # type: ignore[arg-type]
    flow.steps(messages=[])  # type: ignore[call-arg]


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
        assert_type(run.diff("id"), RunDiff)
        assert_type(run.diff(run, all=True, timeout=1), RunDiff)
        assert_type(run.step_trace("s"), StepTrace)
        assert_type(run.step_trace("s", attempt="latest"), StepTrace)
        assert_type(run.step_trace("s", attempt=2, loop_index=0), StepTrace)
        assert_type(run.step_trace("s", attempt=number, loop_index=(0, 1)), StepTrace)
        assert_type(run.step_trace("s", attempt="all", loop_index=[0, 1]), StepAttempts)
        assert_type(run.step_trace("s", attempt=which), StepTrace | StepAttempts)
        assert_type(run.live_trace(), Generator[StreamEvent, None, None])
        page: RunPage = client.runs(status="failed", limit=5)
        assert_type(page.next_cursor, str | None)
        for summary in client.runs():
            assert_type(summary, RunSummary)
        assert_type(client.session(uuid.uuid4(), limit=5), Generator[SessionExecution, None, None])
        with client.session(id="id") as session:
            assert_type(session, Session)
            assert_type(session.id, str)
        assert_type(client.session(), Session)
        assert_type(client.session()(weather)("name", {}), dict[str, float])
        client.session()(weather)(1)  # type: ignore[call-arg, arg-type]
        with client.replay(session.id, match="order", strict=True) as replay:
            assert_type(replay, Replay)
            assert_type(replay.left_over, list[SessionRun])
        client.replay(session.id, match="near")  # type: ignore[arg-type]
        assert_type(runglass.current_session(), str | None)
        flow.execute(version="latest")  # type: ignore[call-overload]
        flow.execute("hi")  # type: ignore[call-overload]
        run.step_trace("s", attempt="first")  # type: ignore[call-overload]
        run.step_trace("s", loop_index="0")  # type: ignore[arg-type]
        client.runs(status="done")  # type: ignore[arg-type]
        runglass.Nothing  # type: ignore[attr-defined]


async def on_asyncio() -> None:
    async with AsyncClient() as client:
        assert_type(client, AsyncClient)
        flow = client.flow("o/p/s")
        assert_type(flow, AsyncFlow)
        run = flow.run("id")
        assert_type(run, AsyncRun)
        assert_type(run.live_trace(), AsyncGenerator[StreamEvent, None])
        assert_type(await client.runs(), RunPage)
        assert_type(await flow.execute(tools=TOOLS, tool_handler=async_weather), CompletedResult)
        paused = await flow.execute(tools=TOOLS)
        assert_type(paused, CompletedResult | AsyncPausedResult)
        if isinstance(paused, AsyncPausedResult):
            assert_type(await paused.resume({}), CompletedResult | AsyncPausedResult)
        assert_type(flow.events(tool_handler=async_weather), AsyncGenerator[StreamEvent, None])
        assert_type(await flow.execute_async(), AsyncJob)
        async for summary in flow.runs():
            assert_type(summary, RunSummary)
        assert_type(await client.session()(async_weather)("name", {}), str)
        async for execution in client.session("id"):
            assert_type(execution.steps[0].output_snapshot, dict[str, Any] | None)


rec = Recorder("assistant")


@rec.run
def answer(question: str, *, words: int = 3) -> list[str]:
    return [question] * words


class Agent:
    @rec.step(kind="retrieval", inputs=["query"])
    async def retrieve(self, query: str) -> bytes:
        return query.encode()

    @staticmethod
    @rec.step
    def parts(count: int) -> Generator[int, str, None]:
        yield count

    @rec.step("stream", reduce=len)
    async def stream(self) -> AsyncGenerator[str, None]:
        yield "a"


async def recording(agent: Agent, headers: dict[str, str]) -> None:
    assert_type(answer("a", words=2), list[str])
    answer(1)  # type: ignore[arg-type]
    answer("a", 2)  # type: ignore[call-arg]
    assert_type(await agent.retrieve("a"), bytes)
    await agent.retrieve(b"a")  # type: ignore[arg-type]
    assert_type(agent.parts(3), Generator[int, str, None])
    assert_type(agent.stream(), AsyncGenerator[str, None])
    assert_type(rec.bind(answer)("a"), list[str])
    with rec.run("ask", parent=headers, tags=["a"]) as run, rec.step("model", kind="llm") as step:
        assert_type(run.url, str)
        step.output = {"text": "a"}
        with step.model_call(model="gpt-4o", provider="openai", messages=[]) as call:
            call.response = object()
    assert_type(rec.flush(timeout=1), bool)
    rec.step(kind="model")  # type: ignore[call-overload]
    if (current := runglass.current_run()) is not None:
        current.add(user="a", metadata={"b": 1})


def reading(trace: Trace, event: StreamEvent) -> None:
    assert_type(trace.flow_run, RunSummary)
    assert_type(trace.flow_run.duration_ms, int | None)
    step = trace.steps[0]
    assert_type(step.loop_index, int | None)
    assert_type(step.cost_usd, str | None)
    assert_type(step.tokens, TokenBreakdown | None)
    assert_type(step.input_context, dict[str, Any] | None)
    assert_type(step.truncated, bool)
    step.title  # type: ignore[attr-defined]
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
    except RequestError as error:
        refused: FlowExecutionError = error
        assert_type(refused.code, str)
    except FlowExecutionError as error:
        assert_type(error.execution_id, str | None)
    except ToolCallLimitError as error:
        error.paused.resume({})
"""


def test_a_users_program_type_checks_and_its_mistakes_are_found(tmp_path: Path) -> None:
    """Unused ignores are errors under `--strict`, so each `type: ignore` proves that its line is refused."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    options = ["--strict", "--no-error-summary", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    report, errors, status = api.run([*options, str(program)])
    assert (report, errors, status) == ("", "", 0)
