"""Head and body leave in one piece, in order, and nothing is kept back."""

import asyncio
from typing import Any

from runglass.server.http.response_writer import HeadBufferingTransport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire(asyncio.Transport):
    """The bytes that were sent, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_head_and_body_are_one_write() -> None:
    wire = Wire()
    joining = HeadBufferingTransport(wire, asyncio.get_running_loop())
    for _ in range(2):
        joining.write(HEAD)
        joining.write(b"body")
        joining.write(b"more")
    assert wire.writes == [HEAD + b"body", b"more"] * 2
    await asyncio.sleep(0)
    assert wire.writes == [HEAD + b"body", b"more"] * 2


async def test_a_head_without_a_body_leaves_with_the_turn() -> None:
    wire = Wire()
    joining = HeadBufferingTransport(wire, asyncio.get_running_loop())
    joining.write(HEAD)
    assert wire.writes == []
    await asyncio.sleep(0)
    assert wire.writes == [HEAD]
    joining.write(b"body")
    assert wire.writes == [HEAD, b"body"]


async def test_a_body_that_looks_like_a_head_is_whole() -> None:
    wire = Wire()
    joining = HeadBufferingTransport(wire, asyncio.get_running_loop())
    for data in (HEAD, HEAD, HEAD, b"end"):
        joining.write(data)
    assert b"".join(wire.writes) == HEAD * 3 + b"end"


async def test_closing_sends_what_is_held() -> None:
    wire = Wire()
    joining = HeadBufferingTransport(wire, asyncio.get_running_loop())
    joining.write(HEAD)
    joining.close()
    assert wire.writes == [HEAD]
    assert joining.is_closing()
    await asyncio.sleep(0)
    assert wire.writes == [HEAD]
