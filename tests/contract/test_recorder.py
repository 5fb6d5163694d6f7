"""The recorder in a program, and the server to which it sends, over a real socket."""

import asyncio
import inspect
import logging
import sys
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from enum import Enum
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID
from weakref import ref

import msgspec
import pytest
from pydantic import BaseModel, computed_field

import runglass
from runglass import Client, Recorder, StepTrace, current_run, current_step
from runglass.recorder.delivery import Delivery
from runglass.recorder.responses import Answer, Usage
from runglass.recorder.spans import OpenStep
from runglass.testing import RunningServer
from runglass.wire.run_api import CaptureMode
from tests.records import there

SECRET = "sk-proj-" + "a1B2c3D4" * 6


def recorder(server: RunningServer, spool: Path, flow: str = "assistant", **options: Any) -> Recorder:
    """One that sends to the server unless told otherwise."""
    address = {"api_key": server.key, "base_url": server.base_url, "spool": spool}
    return Recorder(flow, **{**address, **options})


@pytest.fixture
def rec(server: RunningServer, tmp_path: Path) -> Iterator[Recorder]:
    with recorder(server, tmp_path, release="1.4", environment="staging") as made:
        yield made


def hide(value: Any) -> Any:
    """Masks the number of a card."""
    return msgspec.json.decode(msgspec.json.encode(value).replace(b"4711", b"XXXX"))


class Steps:
    """The run of a trace and its steps by name, as the server has them; of one name the first counts."""

    def __init__(self, server: RunningServer, trace_id: str) -> None:
        with Client(server.key, base_url=server.base_url) as client:
            trace = client.run(trace_id).trace()
        self.run, self.all = trace.flow_run, trace.steps
        self._by_name = {step.name: step for step in reversed(self.all)}

    def __getitem__(self, name: str) -> StepTrace:
        return self._by_name[name]

    def parent(self, name: str) -> str | None:
        ids = {step.span_id: step.name for step in self.all}
        return ids.get(self[name].parent_span_id)


@pytest.fixture
def sent(server: RunningServer, rec: Recorder) -> Any:
    """Reads what was recorded in a trace."""

    def read(trace_id: str) -> Steps:
        assert rec.flush()
        return Steps(server, trace_id)

    return read


def test_functions_of_each_kind_are_steps_and_stay_what_they_are(rec: Recorder, sent: Any) -> None:
    class Agent:
        @rec.step(kind="retrieval")
        async def retrieve(self, query: str, *more: int, limit: int = 3) -> list[str]:
            """Finds."""
            return [query]

        @classmethod
        @rec.step(kind="tool", inputs=["b"])
        def tool(cls, a: int, b: int) -> int:
            return a + b

        @rec.step("words")
        def split(self, text: str) -> Generator[str, str | None, int]:
            got = yield text[0]
            assert got == "more"
            yield text[1]
            return 2

        @rec.step(reduce=sum, process_inputs=lambda given: {"upto": given["count"]})
        async def numbers(self, count: int) -> AsyncGenerator[int, None]:
            for number in range(count):
                yield number

    class Tier(Enum):
        GOLD = "gold"
        NONE = None

    metadata = {"tier": "gold", "tries": 3, "is": [1], "rest": inf, "id": UUID(int=1), "of": Tier.GOLD}
    shown = metadata | {"is": "[1]", "rest": "Infinity", "id": str(UUID(int=1)), "of": "gold"}

    @rec.run(tags=["b", "a"], session="s-1", user="u-1", metadata={**metadata, "no": Tier.NONE})
    async def answer(question: str) -> dict[str, str]:
        run = there(current_run())
        ids.append(run.id)
        agent = Agent()
        assert await agent.retrieve(question, 1, 2, limit=5) == [question]
        assert Agent.tool(1, b=2) == 3
        words = agent.split("ab")
        assert next(words) == "a"
        assert words.send("more") == "b"
        with pytest.raises(StopIteration, match="2"):
            next(words)
        assert [number async for number in agent.numbers(3)] == [0, 1, 2]
        return {"answer": "42"}

    ids: list[str] = []
    assert inspect.iscoroutinefunction(answer)
    assert inspect.isgeneratorfunction(Agent.split)
    assert inspect.isasyncgenfunction(Agent.numbers)
    assert Agent.retrieve.__doc__ == "Finds."
    assert asyncio.run(answer("why?")) == {"answer": "42"}

    steps = sent(ids[0])
    assert {step.status for step in steps.all} == {"completed"}
    assert steps["answer"].input_context == {"question": "why?"}
    assert steps["answer"].output_context == {"answer": "42"}
    assert steps["retrieve"].kind == "retrieval"
    assert steps["retrieve"].input_context == {"query": "why?", "*more": [1, 2], "limit": 5}
    assert steps["tool"].input_context == {"b": 2}
    assert steps["tool"].output_context == {"value": 3}
    assert steps["words"].output_context == {"text": "ab"}
    assert steps["numbers"].input_context == {"upto": 3}
    assert steps["numbers"].output_context == {"value": 3}
    assert {steps.parent(name) for name in ("retrieve", "tool", "words", "numbers")} == {"answer"}
    told = there(steps.run.recording)
    assert (told.name, told.tags, told.session, told.user) == ("answer", ("a", "b"), "s-1", "u-1")
    assert (told.service, told.release, told.environment) == ("assistant", "1.4", "staging")
    attributes = steps["answer"].attributes or {}
    said = {name.removeprefix("metadata."): value for name, value in attributes.items()}
    assert {name: said.get(name) for name in (*metadata, "no")} == {**shown, "no": None}


def test_a_model_call_has_what_was_asked_and_answered_and_what_it_used(rec: Recorder, sent: Any) -> None:
    messages = [{"role": "user", "content": "hi"}]
    with rec.run("chat") as run, rec.step("ask", kind="llm") as step:
        step.input = {"topic": "greeting"}
        with step.model_call(
            model="gpt-4o", provider="openai", messages=messages, settings={"temperature": 0.5}
        ) as call:
            messages.append({"role": "user", "content": "changed later"})
            usage = Usage(input=100, output=20, cached=50)
            call.set_answer(Answer(model="gpt-4o", id="r-1", text="hello", finish_reason="stop", usage=usage))
    steps = sent(run.id)
    [call_told] = steps["chat gpt-4o"].model_calls
    assert call_told.request == {
        "messages": [{"role": "user", "content": "hi"}],
        "settings": {"temperature": 0.5},
    }
    assert call_told.response == {"role": "assistant", "content": "hello"}
    assert (call_told.model, call_told.cached_tokens, call_told.request_id) == ("openai:gpt-4o", 50, "r-1")
    assert steps["ask"].model_calls == ()
    assert steps["ask"].kind == "llm"
    assert steps["ask"].input_context == {"topic": "greeting"}
    totals = there(steps.run.totals)
    assert (totals.by_model["openai:gpt-4o"].calls, totals.unmetered_calls) == (1, 0)


def test_an_exception_passes_and_is_told_and_a_cancelled_task_is_cancelled(rec: Recorder, sent: Any) -> None:
    @rec.step
    def fails() -> None:
        raise ValueError("no such city")

    @rec.step
    async def waits() -> None:
        await asyncio.Event().wait()

    async def cancelled() -> None:
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @rec.step(process_inputs=lambda given: given["code"])
    def leaves(code: object) -> None:
        sys.exit(code)  # type: ignore[arg-type]

    with rec.run("errors") as run:
        with pytest.raises(ValueError, match="no such city"):
            fails()
        asyncio.run(cancelled())
        for code in (None, 0, 2):
            with pytest.raises(SystemExit):
                leaves(code)
    steps = sent(run.id)
    error = steps["fails"].error_context or {}
    assert (error["code"], error["message"]) == ("ValueError", "no such city")
    # From the step on, and without what records it.
    lines = error["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [lines[2].strip(), lines[-1]] == ['raise ValueError("no such city")', "ValueError: no such city"]
    assert len(lines) == 4
    assert steps["waits"].error_context == {"code": "CANCELLED", "message": "the task was cancelled"}
    assert steps["errors"].status == "completed"
    left = [step.error_context for step in steps.all if step.name == "leaves"]
    assert left[:2] == [None, None]
    assert [(told["code"], told["message"]) for told in left[2:]] == [("SystemExit", "2")]


def test_runs_that_are_sent_at_once_are_listed_in_their_order(server: RunningServer, rec: Recorder) -> None:
    names = [str(number) for number in range(20)]
    for name in names:
        with rec.run(name):
            pass
    assert rec.flush()
    with Client(server.key, base_url=server.base_url) as client:
        told = [run.recording.name for run in client.runs(query="flow:assistant", limit=20) if run.recording]
    assert told[:20] == names[::-1]


def test_what_is_no_function_or_no_kind_is_refused_where_it_is_decorated(rec: Recorder) -> None:
    for odd in (property(lambda self: 1), cached_property(lambda self: 1), dict):
        with pytest.raises(TypeError, match="decorate functions and methods"):
            rec.step(odd)  # type: ignore[type-var]


def test_an_unknown_kind_or_option_is_refused_and_an_odd_provider_costs_no_step(
    rec: Recorder, sent: Any
) -> None:
    with pytest.raises(ValueError, match="kind must be one of llm, tool, "):
        rec.step("ask", kind="chat")  # type: ignore[call-overload]
    odd: Any = object()
    with rec.run("odd") as run, run.model_call(model="m", provider=odd):
        misspelled: list[Any] = [rec.model_call, run.model_call, rec.step]
        for call in misspelled:
            with pytest.raises(TypeError, match="there is no option 'prompt'; there are"):
                call(prompt="Hi")
    assert sent(run.id)["chat m"].status == "completed"


def test_what_runs_after_its_function_and_what_nothing_is_read_of_is_told(rec: Recorder, sent: Any) -> None:
    @rec.step
    def starts() -> Generator[int, None, None]:
        return (number for number in range(3))

    with rec.run("later") as run:
        assert list(starts()) == [0, 1, 2]
        with rec.step("ask") as step, step.model_call(model="m") as call:
            call.response = iter(())
    steps = sent(run.id)
    assert steps["starts"].notes == (
        "it returned a generator, which runs after its end and is not part of it",
    )
    assert steps["chat m"].notes == (
        "nothing of the response is recorded: tuple_iterator has an unknown shape",
    )


def test_a_generator_is_current_only_while_it_runs_and_says_that_it_was_left(
    rec: Recorder, sent: Any
) -> None:
    seen: list[OpenStep | None] = []

    @rec.step
    def parts() -> Generator[str, None, None]:
        for text in ("a", "b", "c"):
            seen.append(current_step())
            yield text

    @rec.step
    async def async_parts() -> AsyncGenerator[str, None]:
        seen.append(current_step())
        yield "x"
        yield "y"

    async def consume() -> None:
        stream = async_parts()
        async for _ in stream:
            assert current_step() is run
            break
        await stream.aclose()

    with rec.run("streams") as run:
        stream = parts()
        assert next(stream) == "a"
        assert current_step() is run
        with rec.step("between"):
            assert next(stream) == "b"
        del stream  # nobody closes it
        asyncio.run(consume())
        abandoned = parts()
        del abandoned
    steps = sent(run.id)
    assert [step and step.name for step in seen] == ["parts", "parts", "async_parts"]
    for name, text in (("parts", "ab"), ("async_parts", "x")):
        assert steps[name].status == "completed"
        assert steps[name].output_context == {"text": text}
        assert "left early" in steps[name].notes[0]
        assert steps.parent(name) == "streams"
    assert steps.parent("between") == "streams"
    assert len([step for step in steps.all if step.name == "parts"]) == 1


def test_items_of_a_generator_are_recorded_as_they_were_and_are_not_held(rec: Recorder, sent: Any) -> None:
    @rec.step
    def rows() -> Generator[dict[str, int], None, None]:
        row = {}
        for number in range(3):
            row["n"] = number
            yield row

    class Unbound:
        """What stands for something else, and has nothing now."""

        @property  # type: ignore[misc]
        def __class__(self) -> type:
            raise RuntimeError("unbound")

    @rec.step
    def unbound() -> Generator[Unbound, None, None]:
        yield Unbound()

    class Frame:
        """Large, and nobody's any more once it was used."""

    @rec.step
    async def frames() -> AsyncGenerator[Frame, None]:
        for _ in range(3):
            yield Frame()

    @rec.step
    def large() -> Generator[str, None, None]:
        for _ in range(3):
            yield "x" * 600_000

    async def use() -> list[bool]:
        used = []
        async for frame in frames():
            used.append(ref(frame))
            del frame
        return [each() is None for each in used]

    with rec.run("streams") as run:
        assert len(list(rows())) == len(list(large())) == 3
        assert asyncio.run(use()) == [True] * 3
        assert len(list(unbound())) == 1
    steps = sent(run.id)
    assert steps["rows"].output_context == {"value": [{"n": 0}, {"n": 1}, {"n": 2}]}
    assert len((steps["frames"].output_context or {})["value"]) == 3
    assert steps["unbound"].output_context == {"value": [f"<{Unbound.__module__}.{Unbound.__qualname__}>"]}
    assert steps["large"].notes == ("only the first 2 items are recorded",)
    assert steps["large"].truncated


def test_tasks_that_share_a_block_each_leave_their_own_step(rec: Recorder, sent: Any) -> None:
    async def work(block: Any, enter: asyncio.Event, entered: asyncio.Event, end: asyncio.Event) -> None:
        await enter.wait()
        with block as step:
            step.output = {"ended": end is first}
            entered.set()
            await end.wait()
            if end is first:
                raise ValueError("of the first")

    async def both(block: Any) -> None:
        one = asyncio.create_task(work(block, begin, second, first))
        two = asyncio.create_task(work(block, second, first, third))
        begin.set()
        with pytest.raises(ValueError, match="of the first"):
            await one
        with block as nested, block as inner:
            assert inner.parent is nested
            assert current_step() is inner
        third.set()
        await two

    begin, first, second, third = (asyncio.Event() for _ in range(4))
    with rec.run("tasks") as run:
        asyncio.run(both(rec.step("shared")))
        assert current_step() is run
    shared = [step for step in sent(run.id).all if step.name == "shared"]
    told = {(step.output_context or {}).get("ended"): step.status for step in shared}
    assert told == {True: "failed", False: "completed", None: "completed"}


def test_a_block_whose_begin_was_interrupted_is_not_taken_for_entered(rec: Recorder) -> None:
    block = rec.step("shared")
    entered = copy_context().run(block.__enter__)
    with patch.object(Delivery, "begin", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        block.__enter__()
    # In another context than it was entered in.
    block.__exit__(None, None, None)
    assert entered.end_ns


def test_without_a_key_nothing_is_done_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNGLASS_API_KEY", raising=False)
    with caplog.at_level(logging.WARNING, "runglass"):
        rec = Recorder("assistant")

        @rec.run
        def answer(question: str) -> str:
            run = there(runglass.current_run())
            run.add(tags=["a"])
            with rec.step("ask") as step, step.model_call(model="m") as call:
                call.response = object()
            return question

        assert [answer("a"), answer("b")] == ["a", "b"]
        assert rec.flush()
        rec.close()
    [record] = caplog.records
    assert record.getMessage().startswith("nothing of 'assistant' is recorded: there is no API key")


@pytest.mark.parametrize("mode", ["off", "metadata_only", "redacted", "full"])
def test_a_traceback_is_kept_as_content_is(server: RunningServer, tmp_path: Path, mode: CaptureMode) -> None:
    def fails(more: str) -> None:
        raise ValueError(f"{more}of card 4711, {SECRET}") from KeyError("before")

    with recorder(server, tmp_path, f"raises-{mode}", capture=mode, mask=hide) as rec:
        with pytest.raises(ValueError, match="4711"), rec.run("raises") as run:
            fails("long " * 4000 if mode == "full" else "")
        assert rec.flush()
    error = Steps(server, run.id)["raises"].error_context or {}
    assert error["code"] == "ValueError"
    told = error.get("traceback")
    assert (told is None) == (mode in ("off", "metadata_only"))
    if told is not None:
        assert len(told) <= 10_000
        assert "4711" not in told
        assert told.endswith("of card XXXX, [redacted]")
        assert ("KeyError: 'before'" in told) == (mode == "redacted")


def test_values_are_masked_and_only_what_the_recorder_may_send_is_sent(
    server: RunningServer, tmp_path: Path
) -> None:
    def ask(of_step: dict[str, Any] | None = None, **options: Any) -> StepTrace:
        with recorder(server, tmp_path, "lowered", **options) as rec:
            with rec.run("top") as run:

                @rec.step(**(of_step or {}))
                def card(number: str) -> str:
                    return f"card {number}"

                card("4711")
            assert rec.flush()
        return Steps(server, run.id)["card"]

    masked = ask(mask=hide)
    assert (masked.input_context, masked.output_context) == ({"number": "XXXX"}, {"text": "card XXXX"})
    nothing = ask({"metadata": {"tier": "gold", "tries": 3}}, mask=lambda _: None)
    assert (nothing.input_context, nothing.output_context) == (None, None)
    assert not [name for name in nothing.attributes or {} if name.startswith("metadata.")]
    hidden = ask({"metadata": {"tries": 3}}, mask=lambda _: "***")
    assert (hidden.attributes or {})["metadata.tries"] == "***"
    for step in (ask(capture="metadata_only"), ask({"capture": "metadata_only"})):
        assert (step.input_context, step.output_context) == (None, None)
        assert (step.input_size_bytes, step.output_size_bytes) == (17, 11)
    off = ask({"capture": "full"}, capture="off")
    assert (off.input_context, off.input_size_bytes, off.output_context) == (None, None, None)
    cleaned = ask({"process_outputs": lambda _: {"api_key": SECRET}}, capture="redacted")
    assert cleaned.output_context == {"api_key": "[redacted]"}
    with pytest.raises(ValueError, match="capture must be one of"):
        recorder(server, tmp_path, capture="some")


def test_the_run_is_found_by_its_trace_id(server: RunningServer, rec: Recorder, sent: Any) -> None:
    with rec.run("found") as run:
        for _ in range(2):
            with rec.step("look"):
                pass
    known = sent(run.id).run
    assert run.url == f"{server.address}/runs/{run.id}"
    with Client(server.key, base_url=server.base_url) as client:
        assert known.id in {each.id for each in client.runs()}
        _, *rows = str(client.run(run.id)).splitlines()
        assert [row.partition("  completed")[0].strip() for row in rows] == ["found", "look", "look [1]"]
        with pytest.raises(runglass.FlowNotFoundError):
            client.run("0" * 31 + "1").trace()
    other = server.make_key("acme", "other")
    with Client(other, base_url=server.base_url) as client, pytest.raises(runglass.FlowNotFoundError):
        client.run(run.id).trace()


def test_threads_and_requests_carry_the_step_on_and_a_run_inside_is_a_step(rec: Recorder, sent: Any) -> None:
    @rec.step
    def work(number: int) -> int:
        return number

    with rec.run("top") as run:
        assert rec.headers() == {"traceparent": f"00-{run.trace_id}-{run.span_id}-01"}
        headers = {"Traceparent": rec.headers()["traceparent"]}
        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(rec.bind(work), range(8))) == list(range(8))
            pool.submit(work, 9).result()
        with rec.run("inner") as inner:
            assert inner.id == run.id
            assert current_run() is run
    assert (rec.headers(), current_run()) == ({}, None)
    with rec.run("elsewhere", parent=headers) as continued:
        assert continued.id == run.id
    steps = sent(run.id)
    assert len(steps.all) == 11
    assert {steps.parent(name) for name in ("work", "inner", "elsewhere")} == {"top"}
    with rec.run("new", parent={"traceparent": "nonsense"}) as new:
        assert new.id != run.id
    with rec.step("alone") as step:
        pass
    assert sent(step.trace_id).run.recording.name == "alone"


def test_a_run_that_is_not_sampled_is_not_recorded_anywhere(
    server: RunningServer, rec: Recorder, tmp_path: Path
) -> None:
    never = recorder(server, tmp_path, "never", sample=0.0)
    with never.run("hidden") as run:
        headers = never.headers()
        with rec.step("inside") as step, step.model_call(model="m"):
            assert step.delivery is None
    with rec.run("elsewhere", parent=headers) as continued:
        assert continued.delivery is None
    assert rec.flush()
    with Client(server.key, base_url=server.base_url) as client:
        assert run.id not in {each.recording.trace_id for each in client.runs() if each.recording}


def test_in_a_block_of_attempts_a_step_after_a_failed_one_is_its_next(rec: Recorder, sent: Any) -> None:
    @rec.step
    def flaky(number: int) -> int:
        if number < 2:
            raise ValueError(number)
        return number

    with rec.run("retried") as run, rec.attempts():
        for number in range(3):
            with suppress(ValueError):
                flaky(number)
    steps = [step for step in sent(run.id).all if step.name == "flaky"]
    assert [(step.attributes or {}).get("runglass.attempt") for step in steps] == [None, 2, 3]
    assert [step.status for step in steps] == ["failed", "failed", "completed"]


def test_what_of_the_users_own_helpers_fails_is_left_out_and_told(
    server: RunningServer, tmp_path: Path
) -> None:
    class Broken(BaseModel):
        whole: int = 1

        @computed_field
        def broken(self) -> str:
            raise RuntimeError("no")

    def fails(value: Any) -> Any:
        raise RuntimeError("no")

    with recorder(server, tmp_path, "helpers") as rec:

        @rec.step(process_inputs=fails, process_outputs=fails)
        def processed(text: str) -> str:
            return text

        @rec.step(reduce=fails)
        def reduced() -> Generator[int, None, None]:
            yield 1

        with rec.run("top") as run:
            assert processed("a") == "a"
            assert list(reduced()) == [1]
            with rec.step("valued") as step:
                step.output = Broken()
        assert rec.flush()
    with recorder(server, tmp_path, "helpers", mask=fails) as rec:
        with rec.run("top") as masked, rec.step("masked") as step:
            step.output = "secret"
        assert rec.flush()
    steps = Steps(server, run.id)
    assert steps["processed"].notes == (
        "the arguments could not be read: RuntimeError",
        "the result could not be read: RuntimeError",
    )
    assert steps["reduced"].notes == ("the result could not be read: RuntimeError",)
    assert steps["valued"].output_context == {"whole": 1, "broken": "<not readable: RuntimeError>"}
    told = Steps(server, masked.id)["masked"]
    assert told.notes == (
        "8 bytes of content were left out: it could not be masked or redacted (RuntimeError)",
    )
    assert told.output_context is None


def test_what_cannot_be_read_of_what_is_said_costs_the_user_nothing(rec: Recorder, sent: Any) -> None:
    class Odd:
        """As arrays are, and worse."""

        def __bool__(self) -> bool:
            raise ValueError("ambiguous")

        __str__ = __iter__ = __bool__  # type: ignore[assignment]

    odd: Any = Odd()

    async def attempts() -> AsyncGenerator[int, None]:
        with rec.attempts():
            yield 1

    async def leave() -> None:
        left = attempts()
        await asyncio.create_task(anext(left))
        await left.aclose()

    with rec.run("odd", tags=odd) as run:
        for said in ({"tags": odd}, {"user": odd}, {"metadata": odd}, {"tags": None}):
            run.add(**said)
        for asked in ({"model": odd}, {"tools": odd}, {"settings": [odd]}, {"model": "m", "provider": odd}):
            with run.model_call(**asked):
                pass
        asyncio.run(leave())
    steps = sent(run.id)
    assert len(steps.all) == 5
    assert steps["chat m"].status == "completed"


def test_a_flush_says_that_the_server_has_refused_what_was_recorded(
    server: RunningServer, tmp_path: Path
) -> None:
    with recorder(server, tmp_path, base_url=f"{server.address}/elsewhere/api/v1") as rec:
        with rec.run("lost"):
            pass
        assert not rec.flush(60)
        assert rec.flush(60), "nothing more was recorded"
