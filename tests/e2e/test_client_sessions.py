"""Sessions in a program's own code: blocks, functions and web requests."""

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from runglass import (
    AsyncClient,
    AsyncPausedResult,
    Client,
    RunStarted,
    Session,
    SessionAsgiMiddleware,
    SessionWsgiMiddleware,
    current_session,
)
from runglass.testing import RunningServer
from tests.contract.test_call_bodies import ASK
from tests.contract.test_tool_calls import tool
from tests.e2e.conftest import on_asyncio
from tests.servers import server_with

A, B, C = (str(uuid.UUID(int=number)) for number in (10, 11, 12))


server = server_with(ASK)
client = on_asyncio


async def test_every_call_inside_of_a_block_is_of_its_session_and_says_so(client: AsyncClient) -> None:
    flow = client.flow("ask")
    with client.session() as session:
        assert current_session() == session.id == str(uuid.UUID(session.id))
        done = await flow.execute(message="a")
        job = await flow.execute_async(message="b")
        paused = await flow.execute(message="c", tools=[tool("one")])
        (step,) = [each async for each in flow.steps(message="d")]
    assert isinstance(paused, AsyncPausedResult)
    resumed = await paused.resume({call.id: 1 for call in paused.tool_calls})
    told: list[Any] = [done, job, paused, step, resumed]
    assert [each.session_id for each in told] == [session.id] * 5, "a run stays in its session"
    runs = [each async for each in client.session(session.id)]
    assert [run.execution_id for run in runs] == [each.execution_id for each in told[:4]]
    assert current_session() is None
    outside = await flow.execute(message="a")
    assert outside.session_id is None
    assert (await client.run(outside.execution_id).summary()).session_id is None


async def test_the_innermost_block_counts_and_a_session_of_the_call_or_the_client_is_stronger(
    client: AsyncClient, server: RunningServer
) -> None:
    flow = client.flow("ask")

    async def session_of(**options: Any) -> str | None:
        session_id: str | None = (await flow.execute(message="a", **options)).session_id
        return session_id

    bound = AsyncClient(server.key, base_url=server.base_url, session_id=C)
    async with bound, client.session(id=A):
        with client.session(id=uuid.UUID(B)):
            assert await session_of() == B
            assert await session_of(session_id=C.upper()) == C
            assert (await flow.execute_async(message="a", session_id=uuid.UUID(C))).session_id == C
            assert [step.session_id async for step in flow.steps(message="a", session_id=C)] == [C]
            events = [each async for each in flow.events(message="a", session_id=C)]
            assert [each.session_id for each in events if isinstance(each, RunStarted)] == [C]
            done = await bound.flow("acme/demo/ask").execute(message="a")
            assert done.session_id == C, "the client was made for that session"
            done = await bound.flow("acme/demo/ask").execute(message="a", session_id=A)
            assert done.session_id == A
        assert await session_of() == A
        with bound.session() as own:
            assert (own.id, await session_of()) == (C, C)
        with pytest.raises(ValueError, match=f"belongs to session '{C}'"):
            bound.session(id=A)
    with pytest.raises(ValueError, match="must be a UUID"):
        client.session(id="mine")


async def test_a_block_that_fails_or_is_left_elsewhere_leaves_no_session_behind(client: AsyncClient) -> None:
    with pytest.raises(RuntimeError, match="inside"), client.session():
        raise RuntimeError("inside")
    assert current_session() is None

    async def generator() -> AsyncGenerator[str | None, None]:
        with client.session(id=A):
            yield current_session()

    parts = generator()

    async def first() -> str | None:
        return await anext(parts)

    assert await asyncio.create_task(first()) == A
    assert current_session() is None, "the task had a context of its own"
    await parts.aclose()
    assert current_session() is None


def test_a_block_that_is_left_before_one_inside_of_it_leaves_no_session_behind() -> None:
    def inside() -> Iterator[None]:
        with Session(B):
            yield

    with Session(A):
        parts = inside()
        next(parts)
    assert current_session() == B
    assert next(parts, None) is None
    assert current_session() is None


async def test_tasks_at_a_time_have_their_own_sessions_and_those_that_they_start(client: AsyncClient) -> None:
    everybody = asyncio.Barrier(8)

    async def conversation() -> tuple[str, set[str | None]]:
        async with client.session() as session:
            await everybody.wait()
            asked = (client.flow("ask").execute(message=session.id) for _ in range(3))
            done = await asyncio.gather(*asked)
            return session.id, {each.session_id for each in done}

    held = await asyncio.gather(*(conversation() for _ in range(8)))
    assert all(told == {session_id} for session_id, told in held)
    assert len({session_id for session_id, _ in held}) == 8


def test_threads_at_a_time_have_their_own_sessions(server: RunningServer) -> None:
    everybody = threading.Barrier(6)
    with (
        Client(server.key, base_url=server.base_url, org="acme", project="demo") as client,
        ThreadPoolExecutor(6) as pool,
    ):

        def conversation(number: int) -> bool:
            assert current_session() is None, "a thread does not begin in the session of who starts it"
            with client.session(id=uuid.UUID(int=number)) as session:
                everybody.wait()
                done = client.flow("ask").execute(message="a")
                return done.session_id == session.id

        with client.session():
            assert all(pool.map(conversation, range(1, 7)))


async def test_a_decorated_function_has_a_new_session_in_each_call(client: AsyncClient) -> None:
    new: Session = client.session()
    named: Session = client.session(id=A)

    @new
    def plain(times: int) -> list[str | None]:
        return [current_session(), *(plain(times - 1) if times else [])]

    @new
    async def on_asyncio() -> str | None:
        await asyncio.sleep(0)
        return current_session()

    @named
    def of_one() -> str | None:
        return current_session()

    @named
    def gives_a_coroutine() -> Coroutine[Any, Any, str | None]:
        return on_nothing()

    async def on_nothing() -> str | None:
        return current_session()

    assert await gives_a_coroutine() == A
    inner = plain(1)
    outer = await asyncio.gather(on_asyncio(), on_asyncio())
    assert len({*inner, *outer} - {None}) == 4
    assert [of_one(), of_one()] == [A, A]
    assert (plain.__name__, current_session()) == ("plain", None)

    def parts() -> Iterator[int]:
        yield 1

    async def async_parts() -> AsyncIterator[int]:
        yield 1

    for generator in (parts, async_parts):
        with pytest.raises(TypeError, match="decorate its consumer"):
            new(generator)


async def test_an_asgi_application_has_each_request_in_its_session() -> None:
    both = asyncio.Barrier(2)
    seen: list[str | None] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_session())
        if scope["type"] == "lifespan":
            return
        await both.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": str(current_session()).encode()})

    transport = httpx2.ASGITransport(SessionAsgiMiddleware(application))
    async with httpx2.AsyncClient(transport=transport, base_url="http://own") as http:
        headers = ({"X-Session-ID": A.upper()}, {"X-Session-ID": "no UUID"})
        named, unnamed = await asyncio.gather(*(http.get("/", headers=each) for each in headers))
    assert (named.headers["x-own"], named.headers["x-session-id"], named.text) == ("1", A, A)
    made = unnamed.headers["x-session-id"]
    assert str(uuid.UUID(made)) == unnamed.text == made != A
    await SessionAsgiMiddleware(application)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen[2:] == [None]


async def test_a_response_of_nested_middleware_names_the_session_of_its_calls_alone() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": str(current_session()).encode()})

    transport = httpx2.ASGITransport(SessionAsgiMiddleware(SessionAsgiMiddleware(application)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://own") as http:
        answer = await http.get("/")
    assert answer.headers.get_list("X-Session-Id") == [answer.text]

    def wsgi_application(environ: Any, start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        return [str(current_session()).encode()]

    headers: list[list[tuple[str, str]]] = []
    wrapped = SessionWsgiMiddleware(SessionWsgiMiddleware(wsgi_application))
    (body,) = wrapped({}, lambda status, given: headers.append(given))
    assert headers == [[("X-Session-Id", body.decode())]]


def test_a_wsgi_application_has_each_request_in_its_session_body_and_all() -> None:
    closed: list[str | None] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield str(current_session()).encode()
            yield b"."

        def close(self) -> None:
            closed.append(current_session())

    def application(environ: Any, start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("X-Own", str(current_session()))])
        return Body()

    headers: list[dict[str, str]] = []

    def start(status: str, given: list[tuple[str, str]], error: Any = None) -> None:
        headers.append(dict(given))

    wrapped = SessionWsgiMiddleware(application, header="X-Conversation")
    with Session(C):
        # A server may take the parts of two responses in turns.
        first, second = wrapped({"HTTP_X_CONVERSATION": A}, start), wrapped({}, start)
        pairs = list(zip(first, second, strict=True))
        assert current_session() == C
        for body in (first, second):
            body.close()  # type: ignore[attr-defined]
    made = headers[1]["X-Conversation"]
    assert headers == [{"X-Own": each, "X-Conversation": each} for each in (A, made)]
    assert pairs == [(A.encode(), made.encode()), (b".", b".")]
    assert closed == [A, made]
