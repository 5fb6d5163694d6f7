"""The text of an attempt reaches the log, also where leaving the stream is cut off."""

import asyncio

import pytest

from runglass.engine.steps.model_turn import TextBatcher
from tests.fakes import VirtualClock


async def test_the_last_text_is_recorded_though_leaving_is_cut_off() -> None:
    recorded: list[str] = []

    async def attempt() -> None:
        async with TextBatcher(recorded.append, VirtualClock(), most=100) as stream:
            stream.write("first")
            stream.write("last")
            asyncio.get_running_loop().call_soon(task.cancel)

    task = asyncio.create_task(attempt())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "".join(recorded) == "firstlast"
