"""Background work is begun again however it ends, later and later, and known to fail until it is well."""

import asyncio

import pytest

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
