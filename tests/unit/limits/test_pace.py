"""Large work takes a third of the time while several projects are about, and all of it where one is alone.

It is done beside the event loop, one piece at a time, and the garbage collector stands still then.
"""

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from runglass.engine.models.gateway import CALL_S, ModelGateway
from runglass.limits import pace as pacing
from runglass.limits.offload import LARGE_BYTES, gc_paused, offload, yield_to_others
from runglass.limits.pace import (
    AT_ONCE,
    COPY_S,
    LARGE_MOVE_BYTES,
    LONGEST_REST_S,
    REQUEST_S,
    REST,
    SHORTEST_REST_S,
    Pacer,
    admit_paced,
    current_project,
    paced_transfer,
    set_project,
)
from tests.fakes import VirtualClock
from tests.faulty_store import FaultyStore

PIECES = 4
PIECE_S = 0.02


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualClock]:
    """Rests are over at once and counted, and at first no project is active."""
    clock = VirtualClock()
    monkeypatch.setattr(pacing, "clock", clock)
    monkeypatch.setattr(pacing, "last_seen", [(0, float("-inf"))] * 2)
    yield clock
    pacing.switch_often("others", False)


def worked() -> None:
    """Keeps the processor busy for PIECE_S."""
    began_s = time.thread_time()
    while time.thread_time() - began_s < PIECE_S:
        pass


async def work_in_pieces(pace: Pacer, pieces: int) -> None:
    for _ in range(pieces):
        async with pace.piece(current_project.get()) as piece:
            piece.worked_s = PIECE_S


async def test_large_work_rests_twice_as_long_as_it_works_while_other_projects_are_active(
    clock: VirtualClock,
) -> None:
    set_project(1)
    pace = Pacer()
    await work_in_pieces(pace, 50)
    assert clock.slept_s == []
    set_project(2)
    async with pace.piece(1):
        pass
    assert REST * 50 * PIECE_S > LONGEST_REST_S
    assert clock.slept_s == pytest.approx([LONGEST_REST_S]), "what was not rested alone is not made up for"
    for project_id in (1, 2, 3):
        clock.slept_s.clear()
        set_project(project_id)
        await work_in_pieces(Pacer(), PIECES)
        assert clock.slept_s == pytest.approx([2 * PIECE_S] * (PIECES - 1))


async def test_calls_to_providers_begin_at_a_pace_while_other_projects_are_active(
    clock: VirtualClock,
) -> None:
    async with ModelGateway() as models:
        for project_id, rests in ((1, []), (2, [REST * CALL_S] * 2)):
            set_project(project_id)
            for _ in range(3):
                await models.ready("local:tiny")
            assert clock.slept_s == pytest.approx(rests)


async def test_a_project_does_not_rest_for_the_work_of_another(clock: VirtualClock) -> None:
    rests = FaultyStore(clock)
    rests.hold("sleep")
    set_project(1)
    set_project(2)
    pace = Pacer()
    async with pace.piece(1) as piece:
        piece.worked_s = 10.0
    waiting = asyncio.create_task(pace.piece(1).__aenter__())
    await asyncio.sleep(0)
    async with pace.piece(2):
        pass
    assert [call.args for call in rests.calls("sleep")] == [(LONGEST_REST_S,)]
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_a_project_that_asks_for_nothing_is_not_active_any_more(clock: VirtualClock) -> None:
    set_project(2)
    set_project(1)
    assert pacing.others_are_active(1)
    await clock.sleep(pacing.ABOUT_S)
    assert not pacing.others_are_active(1)


async def test_work_in_the_thread_rests_between_its_pieces_and_before_the_next(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rested_s: list[float] = []
    monkeypatch.setattr(time, "sleep", rested_s.append)

    def work() -> None:
        for _ in range(PIECES):
            worked()
            yield_to_others()

    set_project(2)
    set_project(1)
    await offload(work, size_bytes=LARGE_BYTES + 1)
    assert len(rested_s) == PIECES
    assert min(rested_s) >= 2 * PIECE_S
    clock.slept_s.clear()
    await offload(worked, size_bytes=LARGE_BYTES + 1)
    await offload(worked, size_bytes=LARGE_BYTES + 1)
    assert clock.slept_s[-1] >= 2 * PIECE_S


def is_rest_of(clock: VirtualClock, worked_s: float) -> bool:
    """Whether there was as much rest as that work owes; the shortest rests wait until they are longer."""
    rested_s = sum(clock.slept_s)
    return REST * worked_s - 2 * SHORTEST_REST_S < rested_s < REST * worked_s + SHORTEST_REST_S


async def test_large_answers_are_spread_and_small_ones_are_not(clock: VirtualClock) -> None:
    set_project(2)
    set_project(1)
    many = 2000
    for _ in range(many):
        await paced_transfer(LARGE_MOVE_BYTES)
    assert clock.slept_s == []
    for _ in range(many):
        await paced_transfer(LARGE_MOVE_BYTES + 1)
    assert is_rest_of(clock, many * LARGE_MOVE_BYTES * COPY_S)


async def test_requests_that_come_at_once_take_turns_where_they_are_many(clock: VirtualClock) -> None:
    set_project(2)
    set_project(1)
    await asyncio.gather(*(admit_paced(1, REQUEST_S) for _ in range(AT_ONCE)))
    assert clock.slept_s == []
    await asyncio.gather(*(admit_paced(1, REQUEST_S) for _ in range(100)))
    assert is_rest_of(clock, 100 * REQUEST_S)
    clock.slept_s.clear()
    await admit_paced(2, REQUEST_S)
    assert clock.slept_s == []


async def test_threads_switch_often_while_several_projects_are_active_or_beside_large_work(
    clock: VirtualClock,
) -> None:
    set_project(1)
    assert sys.getswitchinterval() == pytest.approx(pacing.USUAL_SWITCH_S)
    beside = await offload(sys.getswitchinterval, size_bytes=LARGE_BYTES + 1)
    assert (beside, sys.getswitchinterval()) == pytest.approx((pacing.SWITCH_S, pacing.USUAL_SWITCH_S))
    set_project(2)
    assert sys.getswitchinterval() == pytest.approx(pacing.SWITCH_S)
    await offload(sys.getswitchinterval, size_bytes=LARGE_BYTES + 1)
    assert sys.getswitchinterval() == pytest.approx(pacing.SWITCH_S)
    await clock.sleep(pacing.ABOUT_S)
    set_project(2)
    assert sys.getswitchinterval() == pytest.approx(pacing.USUAL_SWITCH_S)


@pytest.mark.parametrize(("size", "here"), [(2, True), (LARGE_BYTES, True), (LARGE_BYTES + 1, False)])
async def test_only_a_large_body_leaves_the_event_loop(size: int, here: bool) -> None:
    loop = threading.get_ident()
    assert (await offload(threading.get_ident, size_bytes=size) == loop) is here
    assert here or await offload(gc.isenabled, size_bytes=size) is False
    assert gc.isenabled()


async def test_projects_take_turns_and_one_piece_goes_on_at_a_time() -> None:
    done: list[int] = []
    most = going = 0
    first_begun, go_on = threading.Event(), threading.Event()

    def work(project: int) -> None:
        nonlocal most, going
        going += 1
        most = max(most, going)
        first_begun.set()
        go_on.wait(60)
        done.append(project)
        going -= 1

    async def work_for(project: int) -> None:
        current_project.set(project)
        await offload(lambda: work(project), size_bytes=LARGE_BYTES + 1)

    flood = [asyncio.create_task(work_for(1)) for _ in range(5)]
    await asyncio.to_thread(first_begun.wait, 60)
    neighbour = asyncio.create_task(work_for(2))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*flood, neighbour)
    assert done == [1, 2, 1, 1, 1, 1]
    assert most == 1


def test_the_collector_stands_still_until_the_last_pause_ends() -> None:
    gc.freeze()
    first, second = gc_paused(), gc_paused()
    first.__enter__()
    second.__enter__()
    many = [[] for _ in range(50_000)]  # type: ignore[var-annotated]
    first.__exit__(None, None, None)
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()
    # They count as old: the next small collection looks through none of them.
    assert gc.get_count()[0] < len(many)
    assert any(each is many[0] for each in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0, "what the start froze counts as old, too"
    # One that was off stays off.
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_beside_much_large_work_the_garbage_collector_still_runs() -> None:
    class Ring:
        def __init__(self) -> None:
            self.own = self

    with gc_paused(collect_s=0.0):
        pass
    with gc_paused():
        ring = weakref.ref(Ring())
    for _ in range(20):
        with gc_paused():
            pass
    assert ring() is not None
    with gc_paused(collect_s=0.0):
        pass
    assert ring() is None
