"""What is written in one go leaves in one piece, in order, and nothing is kept back."""

import asyncio
from typing import Any

from runglass.server.writing import HELD_BYTES, Joining


class Wire(asyncio.Transport):
    """What went out, write by write."""

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
    joining = Joining(wire, asyncio.get_running_loop())
    joining.write(b"head ")
    joining.write(b"body")
    assert wire.writes == []
    await asyncio.sleep(0)
    assert wire.writes == [b"head body"]
    joining.write(b"next")
    await asyncio.sleep(0)
    assert wire.writes == [b"head body", b"next"]


async def test_what_is_much_is_not_held_back() -> None:
    wire = Wire()
    joining = Joining(wire, asyncio.get_running_loop())
    joining.write(b"head ")
    joining.write(b"x" * HELD_BYTES)
    assert wire.writes == [b"head " + b"x" * HELD_BYTES]
    joining.write(b"tail")
    await asyncio.sleep(0)
    assert wire.writes[1:] == [b"tail"]


async def test_closing_sends_what_is_held() -> None:
    wire = Wire()
    joining = Joining(wire, asyncio.get_running_loop())
    joining.write(b"last words")
    joining.close()
    assert wire.writes == [b"last words"]
    assert joining.is_closing()
    await asyncio.sleep(0)
    assert wire.writes == [b"last words"]
