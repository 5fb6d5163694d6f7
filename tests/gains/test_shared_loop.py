"""Answers that stream side by side hold the event loop no longer at a time than one that streams alone."""

import asyncio
import time

from runglass.config.settings import Settings
from runglass.engine.models.gateway import ModelGateway, ModelRequest
from tests.unit.engine.fake_provider import FakeProvider, text_reply

USAGE = {"prompt_tokens": 1, "completion_tokens": 200, "total_tokens": 201}

ANSWER = text_reply(*["word "] * 200, usage=USAGE)
REQUEST = ModelRequest(model="local:tiny", messages=[{"role": "user", "content": "Hi"}])


async def seconds_a_turn(models: ModelGateway, fake: FakeProvider, streams: int) -> float:
    """Time on the processor that a turn of the loop takes while so many answers come as fast as they can."""
    fake.replies += [ANSWER] * streams
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    began = time.thread_time()
    await asyncio.gather(*(models.complete(REQUEST, lambda text: None) for _ in range(streams)))
    took = time.thread_time() - began
    counting.cancel()
    return took / turns


async def test_many_streams_hold_the_loop_no_longer_than_one() -> None:
    """About as long now; thirty times as long where each took its part of each turn."""
    async with (
        FakeProvider.serving() as fake,
        ModelGateway(Settings(providers={"local": fake.base_url})) as models,
    ):
        # Loads the library.
        fake.replies.append(ANSWER)
        await models.complete(REQUEST, lambda text: None)
        alone = await seconds_a_turn(models, fake, 1)
        assert await seconds_a_turn(models, fake, 30) < 5 * alone
