"""Gains in speed that must not be lost, as ratios of processor time with wide margins, never absolute times.

`make gains` runs them one by one: beside other tests on the same cores they would tell of these.
"""

import asyncio
import time

import msgspec
import pytest

from runglass.config.settings import Settings
from runglass.engine.models.gateway import ModelGateway, ModelRequest
from runglass.log.trace import RunSummary, StepTrace, Trace
from runglass.support.json_weight import weighs_more
from runglass.wire.sse import Decoder
from tests.gains.timing import seconds
from tests.unit.engine.fake_provider import COMPATIBLE, FakeProvider


def test_snapshots_are_not_decoded_before_they_are_read() -> None:
    snapshot = msgspec.Raw(msgspec.json.encode({"messages": [{"role": "user", "content": "word " * 20}] * 8}))
    steps = [
        StepTrace(
            step_id="s",
            loop_path=(number,),
            loop_index=number,
            status="completed",
            input_context=snapshot,  # type: ignore[arg-type]  # as the run writer gives it
            output_context=snapshot,  # type: ignore[arg-type]
        )
        for number in range(1000)
    ]
    run = RunSummary(id="r", flow_id="f", status="completed")
    data = msgspec.json.encode(Trace(flow_run=run, steps=steps))
    lazily = seconds(lambda: msgspec.json.decode(data, type=Trace))
    wholly = seconds(lambda: msgspec.json.decode(data))
    assert lazily < 0.6 * wholly


def test_a_frame_of_many_short_lines_costs_little_more_than_cutting_them() -> None:
    """Twice that now; with a view and a copy for each line it was over four times."""
    stream = b"data: 12\n" * 100_000 + b"\n"

    def decode() -> None:
        decoder = Decoder()
        starts = range(0, len(stream), 16 << 10)
        found = [frame for start in starts for frame in decoder.feed(stream[start : start + (16 << 10)])]
        assert [len(frame.data) for frame in found] == [100_000 * 3 - 1]

    assert seconds(decode) < 3.2 * seconds(lambda: [line.partition(b":") for line in stream.split(b"\n")])


@pytest.mark.parametrize(
    "value",
    [
        b"1e300",
        b"4.9e-324",
        b"1e23",
        b"0.14268893141404277039e-190",
        b"74593732.11091063739846025629842065455630e99",
        b"1.0000000000000001110223",
        b"9007199254740993.5",
        b"0." + b"9" * 400,
        b"1e199",
        b"978660472915.17225e4",
        b"562949953421312.0625",
        b"7.585189689040515997903e26",
        '"ā"'.encode(),
        b"12345678901234567890123.5e-29",
        b"9" * 4000,
        b'{"%06d":1}',
        b"{}",
    ],
)
def test_the_heaviest_that_is_taken_is_read_about_as_quickly_as_many_small_values(value: bytes) -> None:
    """No shape may take many times as long as the values that it weighs; `1e300` took 300 times."""

    def made(count: int) -> bytes:
        return b"[%s]" % b",".join(value % index if b"%" in value else value for index in range(count))

    most, fewest, count = 30_000, 1, 30_000
    while count - fewest > max(1, count // 50):
        middle = (fewest + count) // 2
        fewest, count = (fewest, middle) if weighs_more(made(middle), most) else (middle, count)
    made_up = made(fewest)
    assert not weighs_more(made_up, most)
    objects = b"[%s]" % b",".join([b"[]"] * (most // 2))
    assert seconds(lambda: msgspec.json.decode(made_up)) < 4 * seconds(lambda: msgspec.json.decode(objects))


ANSWER = COMPATIBLE.reply(*["word "] * 200)
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
        FakeProvider().serving() as fake,
        ModelGateway(Settings(providers={"local": fake.base_url})) as models,
    ):
        # Loads the library.
        fake.replies.append(ANSWER)
        await models.complete(REQUEST, lambda text: None)
        # Turns in which nothing comes, while others are busy on the machine, make the mean of one small.
        alone = max([await seconds_a_turn(models, fake, 1) for _ in range(5)])
        assert await seconds_a_turn(models, fake, 30) < 5 * alone
