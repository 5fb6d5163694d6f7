"""HTTP to a server that comes and goes: what a careful caller does about it, and nothing more.

Raw HTTP, without our client: a lie of the server must not be hidden by the kindness of the client.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple, Protocol

import httpx2

from runglass.wire.sse import Decoder, Frame

TIMEOUT_S = 30.0
BROKEN, UNAVAILABLE = 0, 503
RETRY_S = 0.005


class Answer(NamedTuple):
    """`status` is BROKEN where the connection broke before the end."""

    status: int
    body: Any


class Signal(Protocol):
    async def wait(self) -> object: ...


class Upstream(Protocol):
    """Whoever answers: a server, or several behind one address.

    `stopping` says that it may end answers in order that are not complete, `gone` that the one which has done
    so will not do it again.
    """

    @property
    def up(self) -> Signal: ...
    @property
    def gone(self) -> Signal: ...
    @property
    def stopping(self) -> bool: ...


class Line:
    """Requests to an upstream that comes and goes; each waits until it is up.

    After an answer that is none it waits for `retry_s`.
    """

    def __init__(self, server: Upstream, http: httpx2.AsyncClient, *, retry_s: float = RETRY_S) -> None:
        self._server = server
        self._http = http
        self._retry_s = retry_s

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> Answer | None:
        """The answer; None if the connection broke, and nobody knows what has happened."""
        await self._server.up.wait()
        try:
            answer = await self._http.request(method, path, json=body, headers=headers)
        except httpx2.TransportError:
            await self._noticed()
            return None
        return _read(answer)

    async def insist(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> Answer:
        """The answer, however often it takes: for what may be sent again."""
        while True:
            stopping = self._server.stopping
            answer = await self.ask(method, path, body, headers=headers)
            if answer is None or answer.status == UNAVAILABLE:
                await self._noticed()
            elif is_interrupted(answer) and (stopping or self._server.stopping):
                # The run goes on without this server: its outcome is to be had from the next one.
                await self._server.gone.wait()
            else:
                return answer

    async def frames(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[Frame | Answer, None]:
        """The events of one answer; an `Answer`, last, if it was a refusal or broke off."""
        await self._server.up.wait()
        decoder = Decoder()
        try:
            async with self._http.stream(method, path, json=body, headers=headers) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    yield _read(answer)
                    return
                async for chunk in answer.aiter_raw():
                    for frame in decoder.feed(chunk):
                        yield frame
        except httpx2.TransportError:
            await self._noticed()
            yield Answer(BROKEN, None)

    async def _noticed(self) -> None:
        # The connection breaks a moment before the process is known to be gone.
        await asyncio.sleep(self._retry_s)


def is_interrupted(answer: Answer) -> bool:
    """Whether it says that the run could not be waited for, and not how it has ended."""
    detail = answer.body.get("detail", {})
    return bool(detail.get("code") == "INTERNAL_ERROR" and detail.get("executionId"))


def _read(answer: httpx2.Response) -> Answer:
    if answer.headers.get("content-type") == "application/json":
        return Answer(answer.status_code, answer.json())
    # Not by the contract: whoever gets it will say so, and what it was.
    return Answer(answer.status_code, {"detail": {"code": "NO_JSON", "message": answer.text}})
