"""Sessions in the caller's own code: blocks, functions and web requests whose calls belong together.

A context variable has the blocks that are open, so that tasks and threads do not see each other's.
"""

import inspect
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from contextvars import Context, ContextVar, copy_context
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from runglass.client.core.connection import SESSION_HEADER, session_header

P = ParamSpec("P")
R = TypeVar("R")

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]
WsgiApp = Callable[..., Iterable[bytes]]

_open: ContextVar[tuple[str, ...]] = ContextVar("runglass_sessions", default=())


def current_session() -> str | None:
    """The id of the session that calls belong to here: that of the innermost block, None outside of all."""
    return next(reversed(_open.get()), None)


def session_of_call(given: str | uuid.UUID | None, of_client: str | None) -> str | uuid.UUID | None:
    """The session of a call: its own, else its client's, else the one that is open.

    A client that has a session was made for it, and a block far outside, such as a middleware's, must not
    take its runs away.
    """
    return next((each for each in (given, of_client) if each is not None), current_session())


class Session:
    """A session as a block (`with`, `async with`) or a decorator: it tags the runs that are started inside.

    `id` is a new UUID where none is given; a decorated function then has a new session in each call. Blocks
    may be nested, and the innermost one counts. They hold for the task or thread that enters them, and for
    the tasks that it starts inside.
    """

    def __init__(self, id: str | uuid.UUID | None = None) -> None:
        self.id = session_header(uuid.uuid4() if id is None else id)[SESSION_HEADER]
        self._given = id

    def __repr__(self) -> str:
        return f"Session({self.id!r})"

    def __enter__(self) -> Self:
        _open.set((*_open.get(), self.id))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        # A generator's block may be left after one that it was entered in, or in a context that has neither.
        ids = list(reversed(_open.get()))
        if self.id in ids:
            ids.remove(self.id)
            _open.set(tuple(reversed(ids)))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, where)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, plain or async, with each of its calls in this session. Raises TypeError."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function!r} is a generator, whose parts run where it is consumed: decorate its consumer"
            )
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def inside(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await Session(self._given)._around(cast(Awaitable[Any], function(*args, **kwargs)))

            return cast(Callable[P, R], inside)

        @wraps(function)
        def within(*args: P.args, **kwargs: P.kwargs) -> R:
            with Session(self._given) as session:
                result = function(*args, **kwargs)
            # Of a plain wrapper of an async function, say: nothing of it has been done yet.
            return cast(R, session._around(result)) if inspect.iscoroutine(result) else result

        return within

    async def _around(self, work: Awaitable[Any]) -> Any:
        with self:
            return await work


def _session_of(given: str) -> Session:
    """The session that a request names; a new one where it names none, or what is no UUID."""
    try:
        return Session(uuid.UUID(given))
    except ValueError:
        return Session()


class SessionAsgiMiddleware:
    """Has each request of an ASGI application in a session: the one that its header names, or a new one.

    The response names it in the same header, unless it has that already: of nested ones the innermost counts.
    """

    def __init__(self, app: AsgiApp, *, header: str = SESSION_HEADER) -> None:
        self._app = app
        self._name = header.lower().encode()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name.lower() == self._name), b"")
        with _session_of(given.decode("latin-1")) as session:

            async def tell(message: Message) -> None:
                if message["type"] in ("http.response.start", "websocket.accept"):
                    headers = list(message.get("headers", ()))
                    if all(name.lower() != self._name for name, _ in headers):
                        headers.append((self._name, session.id.encode()))
                    message = {**message, "headers": headers}
                await send(message)

            await self._app(scope, receive, tell)


class SessionWsgiMiddleware:
    """Has each request of a WSGI application in a session, as `SessionAsgiMiddleware` does."""

    def __init__(self, app: WsgiApp, *, header: str = SESSION_HEADER) -> None:
        self._app = app
        self._header = header
        self._key = f"HTTP_{header.upper().replace('-', '_')}"

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = _session_of(environ.get(self._key, ""))

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if all(name.lower() != self._header.lower() for name, _ in headers):
                headers = [*headers, (self._header, session.id)]
            return start_response(status, headers, *more)

        # The server takes the body after this call, and may do so in turns with those of other requests.
        context = copy_context()
        context.run(session.__enter__)
        return _Body(context, context.run(self._app, environ, start))


class _Body:
    """The body of a WSGI response, each part of it made in the context of its request."""

    def __init__(self, context: Context, body: Iterable[bytes]) -> None:
        self._context = context
        self._body = body
        self._parts = context.run(iter, body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._parts)

    def close(self) -> None:
        if (close := getattr(self._body, "close", None)) is not None:
            self._context.run(close)
