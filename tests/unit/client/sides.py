"""The two sides of the client behind one face, so that a test is written once and proves both."""

import asyncio
from collections.abc import Generator
from contextlib import ExitStack
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
    _closing: str
    """The method of a client that closes it."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._opened = ExitStack()
        self.close = self._opened.close
        sleep = patch.object(self._transport, "sleep", side_effect=lambda seconds: self.waits.append(seconds))
        self._opened.enter_context(sleep)

    def client(self, base_url: str, **options: Any) -> Any:
        return self._until_closed(self._kind(base_url=base_url, **{"api_key": KEY, **options}))

    def transport(self, base_url: str, *, silence_s: float) -> Any:
        """What the client has below it, with another limit of silence."""
        to = endpoint(api_key=KEY, base_url=base_url, timeout=None, max_retries=2)
        return self._until_closed(self._transport(to, silence_s=silence_s))

    def _until_closed(self, client: Any) -> Any:
        self._opened.callback(lambda: self.value(getattr(client, self._closing)()))
        return client

    def value(self, given: Any) -> Any:
        """The result of a call: on asyncio the awaitable is run to its end."""
        raise NotImplementedError

    def events(self, stream: Any) -> list[Any]:
        return list(self.following(stream))

    def following(self, stream: Any) -> Generator[Any, None, None]:
        """What a generator, or a list of runs, of the client yields, one by one; closing this closes that."""
        raise NotImplementedError


class Blocking(Side):
    _kind = Client
    _transport = SyncTransport
    _closing = "close"

    def value(self, given: Any) -> Any:
        return given

    def following(self, stream: Any) -> Generator[Any, None, None]:
        parts: Generator[Any, None, None] = iter(stream)
        return parts


class Asyncio(Side):
    _kind = AsyncClient
    _transport = AsyncTransport
    _closing = "aclose"

    def __init__(self) -> None:
        super().__init__()
        self._runner = self._opened.enter_context(asyncio.Runner())

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
