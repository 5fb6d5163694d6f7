"""`client.replay`: the runs of a session in place of new ones."""

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from runglass import (
    AsyncClient,
    Client,
    CompletedResult,
    FlowExecutionError,
    ReplayError,
    ReplayMiss,
    RunglassError,
)
from runglass.testing import RunningServer
from tests.contract.test_tool_calls import tool
from tests.e2e.conftest import on_asyncio
from tests.servers import server_with

SHARE = """
slug: share
steps:
  - {id: divide, type: code, code: "return {'each': 12 / int(message)}"}
"""
ASK = """
slug: ask
steps:
  - {id: before, type: passthrough}
  - {id: ask, type: llm, model: echo, prompt: "{{ message }}", settings: {parallel_tool_calls: false}}
  - {id: after, type: code, code: "return {'said': text}"}
"""
WALK = """
slug: walk
steps:
  - {id: first, type: code, code: "return {'n': n + 1}"}
  - {id: second, type: code, code: "return {'n': n * 10}"}
  - {id: third, type: code, code: "return {'n': 100 // n}"}
"""
TOOLS = [tool("one"), tool("two")]


server = server_with(SHARE, ASK, WALK)
client = on_asyncio


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNGLASS_REPLAY", "1")


async def outcome(client: AsyncClient, slug: str, **options: Any) -> Any:
    """What a call gives or raises, as plain data."""
    try:
        return await client.flow(slug).execute(**{"trace": True, **options})
    except RunglassError as error:
        told = {name: value for name, value in vars(error).items() if name != "request_id"}
        return type(error), str(error), told


async def first_of_a_walk(client: AsyncClient, *, trace: bool = True) -> Any:
    """The output of the first step of a walk that is left then."""
    async with aclosing(client.flow("walk").steps(parameters={"n": 1}, trace=trace)) as steps:
        return (await anext(steps)).output


async def newest(client: AsyncClient) -> str:
    """The run that was created last."""
    return (await client.runs(limit=1)).runs[0].id


async def agent(client: AsyncClient) -> list[Any]:
    """A program: results, a failure and a second try, the same input twice, tools, a walk and a job."""
    told = [await outcome(client, "share", message="3", parameters={"note": {"a": [1, 2.5, None]}})]
    told += [await outcome(client, "share", message=each) for each in ("0", "0", "4", "4")]
    answered: list[tuple[str, dict[str, Any]]] = []

    def tool(name: str, arguments: dict[str, Any]) -> dict[str, int]:
        answered.append((name, arguments))
        return {"n": len(answered)}

    turns = [
        {"role": "user", "content": [{"type": "text", "text": "who "}, {"type": "text", "text": "are you?"}]},
        {"role": "assistant", "content": "me", "unknown": 1},
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "one", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
        {"role": "user", "content": "hi"},
    ]
    told += [await outcome(client, "ask", messages=turns, tools=TOOLS, tool_handler=tool), answered]
    paused = await outcome(client, "ask", message="again", tools=TOOLS[:1])
    fields = ("execution_id", "paused_at_step", "iterations_used", "tool_calls", "tool_call_messages")
    told += [getattr(paused, name) for name in (*fields, "accumulated_outputs", "flow_id", "block_count")]
    told.append(await paused.resume({call.id: "x" for call in paused.tool_calls}))
    walk = client.flow("walk")
    options: dict[str, Any] = {"parameters": {"n": 1}, "trace": True}
    options["input_overrides"] = {"n": 4, "second": {"n": 7}}
    told.append([(each.step_id, each.output) async for each in walk.steps(**options)])
    bad = walk.steps(parameters={"n": -1}, trace=True)
    with pytest.raises(FlowExecutionError) as failed:
        [each async for each in bad]
    told += [str(failed.value), failed.value.step_id]
    overridden = {"third": {"code": "return {'n': 5}"}}
    told += [each async for each in walk.events(**options, block_overrides=overridden)]
    job = await walk.execute_async(parameters={"n": 1}, trace=True)
    told += [job.execution_id, job.session_id, await job.wait(60)]
    return told


async def test_a_program_gets_what_it_got_then_and_nothing_runs(client: AsyncClient) -> None:
    with client.session() as session:
        live = await agent(client)
    assert [isinstance(each, CompletedResult) for each in live[:5]] == [True, False, False, True, True]
    assert (live[5].result, live[6]) == ({"said": "hi"}, [("two", {})])
    before = await newest(client)
    async with client.replay(session.id, strict=True) as replay:
        assert len(replay.left_over) == 11
        assert await agent(client) == live
        _, said, _ = await outcome(client, "share", message="4")
        assert said.endswith("its 5 runs have answered already")
        assert [str(miss) for miss in replay.misses] == [said]
        replay.misses.clear()
        assert (replay.left_over, replay.misses) == ([], [])
    assert await newest(client) == before
    assert (await agent(client))[0].execution_id != live[0].execution_id, "afterwards calls are sent again"


async def test_a_second_try_gets_the_second_outcome_though_its_input_is_the_same(
    client: AsyncClient, server: RunningServer
) -> None:
    slug = "flaky"
    flow = "slug: {}\nsteps: [{{id: a, type: code, code: '{}'}}]"

    async def tried() -> list[Any]:
        server.push(flow.format(slug, "return 1 / 0"))
        first = await outcome(client, slug, message="a")
        server.push(flow.format(slug, 'return {"n": 1}'))
        return [first, await outcome(client, slug, message="a")]

    with client.session() as session:
        live = await tried()
    assert (live[0][0], live[1].result) == (FlowExecutionError, {"n": 1})
    async with client.replay(session.id, strict=True):
        assert [await outcome(client, slug, message="a") for _ in live] == live
    async with client.replay(session.id) as replay:
        pinned = await outcome(client, slug, message="a", version=2)
        assert pinned == live[1], "a call that names a version gets a run of that"
        assert [run.version for run in replay.left_over] == [1]


def test_calls_at_a_time_get_each_run_once(server: RunningServer) -> None:
    with Client(server.key, base_url=server.base_url) as client, ThreadPoolExecutor(6) as pool:

        def share(_: int) -> str:
            return client.flow("acme/demo/share").execute(message="3", trace=True).execution_id

        with client.session() as session:
            live = {share(number) for number in range(6)}
        with client.replay(session.id, strict=True):
            assert set(pool.map(share, range(6))) == live


async def test_a_miss_names_the_call_and_the_nearest_run(client: AsyncClient) -> None:
    with client.session() as session:
        parameters = {"who": {"name": "Ann", "tags": ["a", "b"]}, "n": 1}
        far = await outcome(client, "share", message="1")
        near = await outcome(client, "share", message="2", parameters=parameters)
        await outcome(client, "ask", message="hi", block_overrides={"ask": {"prompt": "Say {{ message }}"}})
        paused = await outcome(client, "ask", message="hi", tools=TOOLS[:1])
        (call,) = paused.tool_calls
        await paused.resume({call.id: "rain"})
    async with client.replay(session.id) as replay:
        parameters = {"who": {"name": "Ann", "tags": ["a", "c"]}, "n": True}
        _, said, _ = await outcome(client, "share", message="2", parameters=parameters)
        assert said == (
            f"no run of session '{session.id}' answers POST '/seq/acme/demo/share/execute': "
            f"the nearest, run '{near.execution_id}', differs at `inputs.n`: then 1, now true"
        )
        _, said, _ = await outcome(client, "share", message="2 ")
        assert f'run \'{far.execution_id}\', differs at `inputs.message`: then "1", now "2 "' in said
        _, said, _ = await outcome(client, "walk", parameters={"n": 1})
        assert said.endswith("/walk/execute': it has none")
        with pytest.raises(ReplayMiss, match="it has none"):
            [each async for each in client.flow("share").steps(message="1")]
        _, said, _ = await outcome(client, "ask", message="hi", block_overrides={"ask": {"prompt": "Sing"}})
        assert 'differs at `blockOverrides.ask.prompt`: then "Say {{ message }}", now "Sing"' in said
        with pytest.raises(ReplayMiss, match="was not started in this replay"):
            await paused.resume({call.id: "rain"})
        again = await outcome(client, "ask", message="hi", tools=TOOLS[:1])
        with pytest.raises(
            ReplayMiss, match=r'was resumed with other tool results: .*: then "rain", now "snow"'
        ):
            await again.resume({call.id: "snow"})
        assert (await again.resume({call.id: "rain"})).result is not None
        with pytest.raises(ReplayMiss, match="was not resumed any more"):
            await again.resume({call.id: "rain"})
        assert (await outcome(client, "share", message="1")).execution_id == far.execution_id
        _, said, _ = await outcome(client, "share", message="1", version=2)
        assert said.endswith("/v2/execute': it has none")
        assert [str(miss) for miss in replay.misses][-1] == said
        assert len(replay.misses) == 9
        assert (
            repr(replay.left_over[0]) == f"SessionRun('{near.execution_id}', flow='share', method='execute')"
        )
        assert [run.flow for run in replay.left_over] == ["share", "ask"]


async def test_a_strict_replay_tells_at_its_end_what_differs(client: AsyncClient) -> None:
    with client.session() as session:
        done = await outcome(client, "share", message="1")
        paused = await outcome(client, "ask", message="hi", tools=TOOLS[:1])
        await paused.resume({paused.tool_calls[0].id: "x"})
    with pytest.raises(
        ReplayError, match=f"0 calls were not found, 2 runs are left over: .*{done.execution_id}"
    ):
        async with client.replay(session.id, strict=True):
            await outcome(client, "ask", message="hi", tools=TOOLS[:1])
    with pytest.raises(ReplayError, match="1 calls were not found, 2 runs"):
        async with client.replay(session.id, strict=True):
            await outcome(client, "share", message="9")
    with client.session() as other:
        await outcome(client, "share", message="1")
    with pytest.raises(ReplayError, match="1 calls were not found, 0 runs"):
        async with client.replay(other.id, strict=True):
            _ = [await outcome(client, "share", message=message) for message in ("1", "9")]
    with pytest.raises(ZeroDivisionError):
        async with client.replay(session.id, strict=True):
            raise ZeroDivisionError
    async with client.replay(session.id) as replay:
        assert len(replay.left_over) == 2


async def test_a_replay_reads_and_sends_nothing_else(client: AsyncClient) -> None:
    with client.session() as session:
        done = await outcome(client, "share", message="1")
    run = client.run(done.execution_id)
    async with client.replay(session.id) as replay:
        again = await outcome(client, "share", message="1")
        assert (await client.run(again.execution_id).trace()).steps[0].output_context == {"each": 12.0}
        for call in (run.cancel, run.delete):
            with pytest.raises(ReplayError, match="is not sent in a replay"):
                await call()
        with pytest.raises(ReplayMiss, match="only `execute`, `execute_async`, `steps` and `events`"):
            await run.rerun()
        with pytest.raises(ReplayError, match="in a replay already"):
            await client.replay(session.id).__aenter__()
        assert len(replay.misses) == 1
    assert (await run.summary()).status == "completed"


@pytest.mark.parametrize("value", [None, "", "0", "true"])
async def test_a_replay_is_refused_unless_the_environment_switches_it_on(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("RUNGLASS_REPLAY")
    else:
        monkeypatch.setenv("RUNGLASS_REPLAY", value)
    with pytest.raises(ReplayError, match="replays are off: set RUNGLASS_REPLAY=1"):
        await client.replay(str(uuid.uuid4())).__aenter__()


async def test_a_session_that_cannot_be_replayed_says_why(client: AsyncClient) -> None:
    with pytest.raises(ReplayError, match="has no runs that can be replayed"):
        await client.replay(str(uuid.uuid4())).__aenter__()
    with pytest.raises(ValueError, match="must be a UUID"):
        await client.replay("mine").__aenter__()
    with pytest.raises(ValueError, match="match must be 'input' or 'order'"):
        await client.replay(str(uuid.uuid4()), match="nearest").__aenter__()  # type: ignore[arg-type]


async def test_what_was_not_kept_does_not_answer_and_says_so(client: AsyncClient) -> None:
    with client.session() as session:
        await outcome(client, "share", message="1", trace=False)
        failed = await outcome(client, "share", message="0", trace=False)
        await first_of_a_walk(client, trace=False)
    async with client.replay(session.id) as replay:
        assert await outcome(client, "share", message="0") == failed, "a failed run keeps its input and error"
        _, said, _ = await outcome(client, "share", message="1")
        assert "as its input was not kept, or is removed (capture mode metadata_only)" in said
        assert len(replay.left_over) == 2
    async with client.replay(session.id, match="order"):
        _, said, _ = await outcome(client, "share", message="1")
        why = "its outputs were not kept, or are removed (capture mode metadata_only)"
        assert f"{why}: record with `trace=True`" in said
        with pytest.raises(ReplayMiss, match=re.escape(why)):
            await first_of_a_walk(client)


async def test_what_is_redacted_is_compared_with_nothing_and_taken_in_order_if_asked_for(
    client: AsyncClient, server: RunningServer
) -> None:
    server.push("slug: secret\ncapture: redacted\nsteps: [{id: a, type: passthrough}]")
    with client.session() as session:
        for given in ("one", "two"):
            await outcome(client, "secret", parameters={"password": given})
        await outcome(client, "secret", parameters={"n": 1})
    async with client.replay(session.id):
        _, said, _ = await outcome(client, "secret", parameters={"password": "one"})
        assert said.count('parts of its input are redacted; `match="order"` would take it') == 2
        assert (await outcome(client, "secret", parameters={"n": 1})).result == {"n": 1}
    async with client.replay(session.id, match="order", strict=True):
        told = [(await outcome(client, "secret", parameters={"any": n})).result for n in range(3)]
        assert told == [{"password": "[redacted]"}, {"password": "[redacted]"}, {"n": 1}]


async def test_a_run_that_is_not_over_answers_as_far_as_it_came(client: AsyncClient) -> None:
    with client.session() as session:
        paused = await outcome(client, "ask", message="hi", tools=TOOLS[:1])
        first = await first_of_a_walk(client)
    async with client.replay(session.id, strict=True):
        again = await outcome(client, "ask", message="hi", tools=TOOLS[:1])
        assert again.execution_id == paused.execution_id
        assert await first_of_a_walk(client) == first


def test_the_page_on_sessions_is_a_program_that_runs(server: RunningServer, connected: None) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text("utf-8")
    names: dict[str, Any] = {"__name__": "page"}
    shown = StringIO()
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", page, re.M | re.S):
        if kind == "yaml":
            server.push(block)
        elif kind == "python":
            with redirect_stdout(shown):
                exec(block, names)
        elif kind == "text":
            printed = re.sub(r"[0-9a-f-]{36}", "ID", shown.getvalue())
            assert printed == re.sub(r"[0-9a-f-]{36}", "ID", block)
            shown.truncate(shown.seek(0))
    names["client"].close()
