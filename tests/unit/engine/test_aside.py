"""Large work beside the event loop: one piece at a time, projects in turn."""

import asyncio
import threading

from runglass.engine.aside import LARGE_BYTES, aside, working_for


async def test_projects_take_turns_and_one_piece_goes_on_at_a_time() -> None:
    done: list[int] = []
    most = going = 0
    first_begun, go_on = threading.Event(), threading.Event()

    def work(project: int) -> None:
        nonlocal most, going
        going += 1
        most = max(most, going)
        first_begun.set()
        go_on.wait(10)
        done.append(project)
        going -= 1

    async def work_for(project: int) -> None:
        working_for.set(project)
        await aside(lambda: work(project), size_bytes=LARGE_BYTES + 1)

    flood = [asyncio.create_task(work_for(1)) for _ in range(5)]
    await asyncio.to_thread(first_begun.wait, 10)
    neighbour = asyncio.create_task(work_for(2))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*flood, neighbour)
    assert done == [1, 2, 1, 1, 1, 1]
    assert most == 1


async def test_small_work_is_done_at_once() -> None:
    assert await aside(threading.get_ident, size_bytes=LARGE_BYTES) == threading.get_ident()
