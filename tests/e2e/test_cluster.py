"""What `prove cluster` breaks between processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.prove.clustering.network import Link

TIMEOUT_S = 60.0


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """The port of a service that sends back what it is sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_what_is_cut_comes_when_the_link_is_whole_again() -> None:
    async with (
        echo() as port,
        Link(port).serving() as link,
        Link(port).serving() as whole,
        asyncio.timeout(TIMEOUT_S),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        for up, down in ((True, False), (False, True), (True, True)):
            link.cut(up=up, down=down)
            writer.write(b"hello")
            answer = asyncio.create_task(reader.readexactly(5))
            other, other_writer = await asyncio.open_connection("127.0.0.1", link.port)
            other_writer.write(b"other")
            # What is sent after it, and not held, comes.
            marker, marker_writer = await asyncio.open_connection("127.0.0.1", whole.port)
            marker_writer.write(b"later")
            assert await marker.readexactly(5) == b"later"
            marker_writer.close()
            assert not answer.done()
            link.heal()
            assert await answer == b"hello"
            assert await other.readexactly(5) == b"other"
            other_writer.close()
        writer.close()
