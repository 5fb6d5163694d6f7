"""Large work is done beside the event loop, one piece at a time; the garbage collector stands still then."""

import asyncio
import gc
import threading
import weakref

import pytest

from runglass.limits.offload import LARGE_BYTES, gc_paused, offload
from runglass.limits.pace import current_project


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

    with gc_paused():
        ring = weakref.ref(Ring())
    for _ in range(20):
        with gc_paused():
            pass
    assert ring() is not None
    with gc_paused(collect_s=0.0):
        pass
    assert ring() is None
