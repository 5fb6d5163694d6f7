"""Something between a client and its PostgreSQL that loses one message, or the answer to it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import parse_qs, urlsplit

COMMIT = "; COMMIT"
"""The end of every transaction that writes."""
SOCKET = ".s.PGSQL.5432"


class CuttingProxy:
    """Passes everything on to the server at an address, but for what `cut` and `go_away` say.

    `was_ended` is set once the server has closed a connection. `names_itself`: as a pooler does, it makes up
    the number of the server's process.
    """

    def __init__(self, address: str, *, names_itself: bool = False) -> None:
        self._server = f"{parse_qs(urlsplit(address).query)['host'][0]}/{SOCKET}"
        self._names_itself = names_itself
        self.prepared: list[str] = []
        """The statements that were prepared under a name, in the order in which they came."""
        self._statement = b""
        self._when: Literal["before", "after"] = "after"
        self._for_good = False
        self._is_away = False
        self.speaks = asyncio.Event()
        """While it is not set, the proxy takes connections and all that is sent, and passes no answer on."""
        self.speaks.set()
        self.was_ended = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    def cut(self, statement: str, when: Literal["before", "after"], *, for_good: bool = False) -> None:
        """Closes the next connection that executes such a statement: before the server gets it, or after.

        `for_good`: and all others with it, see `go_away`.
        """
        self._statement, self._when, self.cuts, self._for_good = statement.encode(), when, 0, for_good

    def go_away(self) -> None:
        """Closes every connection, and each new one at once, until `come_back`."""
        self._is_away = True
        for writer in self._writers:
            writer.close()

    def come_back(self) -> None:
        self._is_away = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on what comes over one connection."""
        if self._is_away:
            writer.close()
            return
        below, above = await asyncio.open_unix_connection(self._server)
        self._writers |= {writer, above}
        is_cut, has_answered = asyncio.Event(), asyncio.Event()
        if self._names_itself:
            # A client logs in, and the last answer to that gets another number of the server's process.
            above.write(await reader.read(1 << 20))
            answer = await below.readuntil(b"K\0\0\0\x0c")
            number = int.from_bytes(await below.readexactly(4), "big")
            writer.write(answer + (number + 1).to_bytes(4, "big"))
        answers = asyncio.create_task(self._answers(below, writer, is_cut, has_answered))
        named: dict[bytes, bytes] = {}
        with suppress(OSError):
            while data := await reader.read(1 << 20):
                if not self._is_decisive(data, named):
                    above.write(data)
                    continue
                is_cut.set()
                if self._when == "after":
                    above.write(data)
                    await has_answered.wait()
                if self._for_good:
                    self.go_away()
                break
        for each in (writer, above):
            each.close()
            self._writers.discard(each)
        await answers

    async def _answers(
        self,
        below: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_cut: asyncio.Event,
        has_answered: asyncio.Event,
    ) -> None:
        with suppress(OSError):
            while data := await below.read(1 << 20):
                await self.speaks.wait()
                if is_cut.is_set():
                    break
                writer.write(data)
        has_answered.set()
        self.was_ended.set()
        writer.close()

    def _is_decisive(self, data: bytes, named: dict[bytes, bytes]) -> bool:
        """Whether the message is the one to be lost. `named`: the statements prepared on this connection."""
        kind, (first, second, *_) = data[:1], [*data[5:].split(b"\0", 2), b""]
        if kind == b"P" and first:
            named[first] = second
            self.prepared.append(second.decode())
        # A statement with values is parsed to be described. Then its values are bound: under its name, or
        # behind the statement once more.
        behind = 1 + int.from_bytes(data[1:5], "big")
        executed = {
            b"Q": data,
            b"P": data if data[behind : behind + 1] == b"B" else b"",
            b"B": named.get(second, b""),
        }
        if not self._statement or self._statement not in executed.get(kind, b""):
            return False
        self._statement, self.cuts = b"", 1
        return True


@asynccontextmanager
async def cutting_proxy(
    address: str, *, names_itself: bool = False
) -> AsyncIterator[tuple[CuttingProxy, str]]:
    """A proxy to the server at this address, and the address of the same database by way of it."""
    proxy = CuttingProxy(address, names_itself=names_itself)
    # Sockets have short names.
    with tempfile.TemporaryDirectory(prefix="runglass-") as folder:
        server = await asyncio.start_unix_server(proxy.serve, f"{folder}/{SOCKET}")
        try:
            yield proxy, urlsplit(address)._replace(query=f"host={folder}").geturl()
        finally:
            server.close()
            proxy.go_away()
            await server.wait_closed()
