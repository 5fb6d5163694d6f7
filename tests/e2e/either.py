"""Both clients behind one face for coroutines, whose context their calls have."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self

from runglass import AsyncClient, Client
from runglass.testing import RunningServer


class Either:
    """A client of either kind; `Any`, as their types differ."""

    def __init__(self, kind: type[Client | AsyncClient], server: RunningServer, **options: Any) -> None:
        self.client: Any = kind(server.key, base_url=server.base_url, org="acme", project="demo", **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.value(self.client.aclose() if hasattr(self.client, "aclose") else self.client.close())

    async def value(self, given: Any) -> Any:
        """The result of a call."""
        return await given if isawaitable(given) else given

    async def every(self, stream: Any) -> list[Any]:
        """What a generator yields."""
        return [each async for each in stream] if hasattr(stream, "__aiter__") else list(stream)

    async def first(self, stream: Any) -> Any:
        """The first thing that a generator yields, which is closed then."""
        found = await anext(stream) if hasattr(stream, "__anext__") else next(stream)
        await self.value(stream.aclose() if hasattr(stream, "aclose") else stream.close())
        return found

    @asynccontextmanager
    async def replay(self, session_id: str, **options: Any) -> AsyncIterator[Any]:
        """A replay of the client, which is a block of its kind."""
        async with AsyncExitStack() as stack:
            block = self.client.replay(session_id, **options)
            asynchronous = hasattr(block, "__aenter__")
            yield await stack.enter_async_context(block) if asynchronous else stack.enter_context(block)
