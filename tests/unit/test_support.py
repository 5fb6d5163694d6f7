"""The small parts that all rooms use: work that is begun again, a cache, the weight of JSON, safe text.

And a clock that processes share: it says what it was told last, whatever the clock of its machine does.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock, call

import msgspec
import pytest

from runglass.support.byte_cache import ByteCache
from runglass.support.clock import SharedClock
from runglass.support.json_weight import MOST_VALUES, too_heavy, weighs_more
from runglass.support.safe_text import printable
from runglass.support.supervision import SupervisedTask
from tests.fakes import VirtualClock


async def test_work_that_fails_is_begun_again_later_and_later_and_is_failing_until_it_has_settled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, settled = VirtualClock(), asyncio.Event()
    seen: list[bool] = []

    async def work() -> None:
        seen.append(supervised.failing)
        match len(seen):
            case 1 | 2 | 3:
                raise ZeroDivisionError("a fault")
            case 4:
                return
            case 5:
                await clock.sleep(9)
                seen.append(supervised.failing)
                await clock.sleep(1)
                seen.append(supervised.failing)
                raise ZeroDivisionError("a fault after a good while")
        settled.set()
        await asyncio.Event().wait()

    supervised = SupervisedTask("the test", work, clock=clock, vital=True, settled_s=10)
    assert not supervised.failing
    task = asyncio.create_task(supervised.run_forever())
    await settled.wait()
    assert supervised.failing
    assert seen == [False, True, True, True, True, True, False, True]
    assert clock.slept_s == [1, 2, 4, 8, 9, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        *["the test failed and is restarted"] * 3,
        "the test ended by itself and is restarted",
        "the test failed and is restarted",
    ]
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


def test_a_value_is_made_once_and_the_least_recently_used_one_goes() -> None:
    make = Mock(side_effect=len)
    cache = ByteCache[bytes, int](make, times=1, share=1.0)
    cache.limit(10_000)
    keys = [bytes([n]) * 500 for n in range(10)]
    assert [cache(key) for key in (keys[0], keys[0], keys[1], keys[0])] == [500] * 4
    assert make.mock_calls == list(map(call, keys[:2]))
    for key in keys:
        cache(key)
        assert cache.size_bytes <= 10_000
    cache(keys[0])
    assert make.mock_calls.count(call(keys[0])) == 2
    cache.limit(0)
    assert cache.size_bytes == 0


def test_a_value_counts_for_what_it_takes_beside_its_key() -> None:
    cache = ByteCache[bytes, int](int, times=1, share=1.0, beside=lambda value: value)
    cache.limit(10_000)
    for key in (b"1000", b"1001", b"1002"):
        cache(key)
    assert cache.size_bytes > 4_000
    before = cache.size_bytes
    assert cache(b"9000") == 9000
    assert cache.size_bytes == before
    cache.limit(3_500)
    assert 0 < cache.size_bytes <= 3_500


@pytest.mark.parametrize(
    "text", ["[" * 5_000, '"' * 5_000, '\\"[,{' * 1_000, "\\", '\\\\",', "1e300:" * 900, ""]
)
def test_texts_are_one_value_each(text: str) -> None:
    data = msgspec.json.encode({"texts": [text, "a,b", text], text: 1})
    assert not weighs_more(data, 30)
    assert weighs_more(msgspec.json.encode([text, *[[]] * 30]), 30)


@pytest.mark.parametrize(
    ("data", "weight"),
    [
        (b"[1,2,3]", 3),
        (b'{"a":1,"b":[{"c":null}]}', 4 + 3 * 6),
        (b"[1e300,1E-300,1e+300,1e289]", 4 * (1 + 300)),
        (b"[1e23,1E23,1e+23,3.2e24,3.2e-24]", 4 * (1 + 14) + 1),
        (b"[1234567890.12345e4,1234567890.12345e-4,1234567890.12345e-05]", 3 + 2 * 14),
        (b"[" + b"7" * 99 + b"]", 1 + 4 * 4),
        (b"[0." + b"7" * 220 + b"]", 1 + 10 * 4 + 150),
        ('["ä", "a"]'.encode(), 2 + 2),
        (b'["e300", "1:2"]', 2),
    ],
)
def test_slow_values_count_as_several(data: bytes, weight: int) -> None:
    assert weighs_more(data, weight - 1)
    assert not weighs_more(data, weight)


def test_json_of_many_values_is_refused_with_the_reason_and_not_that_of_long_texts_and_sensors() -> None:
    texts = ["1e300,{" * 200_000, '"\\' * 300_001, "", "a"]
    vectors = [[(-1) ** i * (i + 1) / 7919.0 for i in range(1536)] for _ in range(300)]
    light: list[Any] = [[[]] * 500_000, {"csv": "1,2,3,4," * 500_000}, {"vectors": vectors}, texts * 2]
    for value in light:
        assert too_heavy(msgspec.json.encode(value)) is None
    heavy: list[Any] = [[[]] * 2_100_000, [""] * 2_100_000, [*texts * 2, *[[]] * MOST_VALUES]]
    for value in heavy:
        assert too_heavy(msgspec.json.encode(value)) == (
            "it takes as long to be read as more than 2,000,000 values, of which long numbers and great"
            " exponents count as many"
        )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("/flow-runs/ä 你好", "/flow-runs/ä 你好"),
        ("a\nb\r\x1b[2J\x00", r"a\nb\r\x1b[2J\x00"),
        ("a\x85\u2028\u202e\ud800", r"a\x85\u2028\u202e\ud800"),
        ("a" * 600, "a" * 500 + "…"),
    ],
)
def test_invisible_characters_are_escaped_and_long_texts_cut(text: str, line: str) -> None:
    assert printable(text) == line


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Machine(VirtualClock):
    """A machine whose time of day is set by hand, and does not go on."""

    time_of_day = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time_of_day


def tell(clock: SharedClock, machine: Machine, moment: datetime, *, took_s: float = 0.002) -> None:
    """Tells it a time that was true in the middle of a round trip."""
    asked_s = clock.monotonic_s()
    machine.set_back(-took_s)
    clock.tell(moment - timedelta(seconds=took_s / 2), asked_s=asked_s)


def off_s(clock: SharedClock, moment: datetime) -> float:
    return abs((clock.now() - moment).total_seconds())


def test_it_goes_on_from_what_it_was_told_whatever_time_it_is_on_its_machine() -> None:
    machine = Machine()
    clock = SharedClock(machine)
    tell(clock, machine, NOON)
    assert off_s(clock, NOON) < 1e-3
    machine.time_of_day += timedelta(hours=1)
    machine.set_back(-5)
    assert off_s(clock, NOON + timedelta(seconds=5)) < 1e-3
    assert clock.now().tzinfo is UTC


def test_an_answer_that_took_long_moves_it_only_where_it_knows_less() -> None:
    machine = Machine()
    clock = SharedClock(machine)
    tell(clock, machine, NOON, took_s=4)
    assert off_s(clock, NOON) < 1e-3, "the middle of what is possible"
    tell(clock, machine, NOON)
    tell(clock, machine, NOON + timedelta(seconds=2), took_s=4)
    assert off_s(clock, NOON + timedelta(seconds=4)) < 1e-3, "it was told at once, and that is passed over"
    machine.set_back(-10_000)
    later = NOON + timedelta(seconds=10_009)
    tell(clock, machine, later, took_s=4)
    assert off_s(clock, later) < 1e-3, "the clocks may have diverged by as much"


@pytest.mark.parametrize("by", [timedelta(hours=-1), timedelta(seconds=5), timedelta(days=400)])
def test_a_clock_that_was_set_is_followed_at_once(by: timedelta) -> None:
    machine = Machine()
    clock = SharedClock(machine)
    tell(clock, machine, NOON)
    tell(clock, machine, NOON + by, took_s=3)
    assert off_s(clock, NOON + by) < 1e-3
