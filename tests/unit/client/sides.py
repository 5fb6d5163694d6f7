"""The two sides of the client behind one face, so that a test is written once and proves both."""

import asyncio
from collections.abc import Generator
from typing import Any
from unittest.mock import patch

from runglass import AsyncClient, Client
from runglass.client.core.connection import endpoint
from runglass.client.transport.blocking import SyncTransport
from runglass.client.transport.on_asyncio import AsyncTransport

KEY = "nk_test"
PASSED_S = 1e-9
"""A timeout that has passed before anything can be asked."""
RUN = "0198c0de-0000-7000-8000-000000000001"


class Side:
    """The blocking or the asyncio client behind one interface. Clients are `Any`, as their types differ.

    Waits between attempts are not waited for but noted in `waits`.
    """

    _kind: type[Client | AsyncClient]
    _transport: type[SyncTransport | AsyncTransport]

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._clients: list[Any] = []

    def client(self, base_url: str, **options: Any) -> Any:
        client: Any = self._kind(base_url=base_url, **{"api_key": KEY, **options})
        self._clients.append(client)
        return client

    def transport(self, base_url: str, *, silence_s: float) -> Any:
        """What the client has below it, with another limit of silence."""
        made = self._transport(
            endpoint(api_key=KEY, base_url=base_url, timeout=None, max_retries=2), silence_s=silence_s
        )
        self._clients.append(made)
        return made

    def value(self, given: Any) -> Any:
        """The result of a call: on asyncio the awaitable is run to its end."""
        raise NotImplementedError

    def events(self, stream: Any) -> list[Any]:
        return list(self.following(stream))

    def following(self, stream: Any) -> Generator[Any, None, None]:
        """What a generator, or a list of runs, of the client yields, one by one; closing this closes that."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Blocking(Side):
    _kind = Client
    _transport = SyncTransport

    def __init__(self) -> None:
        super().__init__()
        self._patch = patch.object(SyncTransport, "sleep", lambda _, seconds: self.waits.append(seconds))
        self._patch.start()

    def value(self, given: Any) -> Any:
        return given

    def following(self, stream: Any) -> Generator[Any, None, None]:
        parts: Generator[Any, None, None] = iter(stream)
        return parts

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._patch.stop()


class Asyncio(Side):
    _kind = AsyncClient
    _transport = AsyncTransport

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()

        async def sleep(transport: AsyncTransport, seconds: float) -> None:
            self.waits.append(seconds)

        self._patch = patch.object(AsyncTransport, "sleep", sleep)
        self._patch.start()

    def value(self, given: Any) -> Any:
        async def wait() -> Any:
            return await given

        return self._runner.run(wait())

    def following(self, stream: Any) -> Generator[Any, None, None]:
        parts = aiter(stream)

        async def following() -> Any:
            return await anext(parts, None)

        try:
            while (event := self._runner.run(following())) is not None:
                yield event
        finally:
            self.value(parts.aclose())

    def close(self) -> None:
        for client in self._clients:
            self.value(client.aclose())
        self._runner.close()
        self._patch.stop()
