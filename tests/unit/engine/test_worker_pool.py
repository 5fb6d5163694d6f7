"""A pool of processes whose function is the test's own, and does what it is told; and that for checks.

Checks that are not proved quick are made in a process within limits, with the same messages.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from runglass.config.settings import Settings
from runglass.engine.workers import checks as module
from runglass.engine.workers.checks import Checks
from runglass.engine.workers.pool import LimitHit, WorkerPool
from runglass.engine.workers.process import WorkerDied, WorkerNotStarted
from runglass.engine.workers.worker import PEAK_BYTES
from runglass.errors import APIError, StepFailure
from runglass.flows.flow import Flow, LlmStep
from runglass.flows.schemas.schema import Unproved
from runglass.limits.pace import current_project
from tests.flows import doubling
from tests.waiting import eventually, until

MODULE = """
import os
import threading
from pathlib import Path


def answer(message):
    word, _, rest = message.decode().partition(" ")
    if word == "never":
        Path(rest).touch()
        threading.Event().wait()
    if word == "compute":
        while True:
            pass
    if word in ("claim", "linger"):
        pid = str(os.getpid()).encode()
        # The head of a reply of 4 GB, or a reply and more, from a process that obeys nobody any more.
        told = {"claim": b"\\xff" * 5 + b"x" * 1000, "linger": len(pid).to_bytes(4) + b"\\0" + pid + b"more"}
        for fd in range(3, 64):
            try:
                os.write(fd, told[word])
            except OSError:
                continue
        threading.Event().wait()
    if word == "hold":
        b"x" * int(rest)
    if word == "keys":
        return str(sum("KEY" in name for name in os.environ)).encode()
    return str(os.getpid()).encode()
"""
LIMIT_BYTES = 512 << 20


@pytest.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WorkerPool]:
    """Of a project there is one process only: it would be asked for as long as its answer may take."""
    (tmp_path / "as_told.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    async with WorkerPool(
        "as_told:answer", what="tests", memory_limit_bytes=LIMIT_BYTES, memory_setting="memory"
    ) as pool:
        yield pool


async def asked(pool: WorkerPool, message: str, *, limit_ms: int = 3_600_000, owner: int = 0) -> int:
    """The id of the process that answered."""
    return await pool.call(
        message.encode, int, what="to obey", limit_ms=limit_ms, setting="time", owner=owner
    )


async def test_a_process_answers_its_owner_again_and_nobody_else(pool: WorkerPool) -> None:
    first = await asked(pool, "ping", owner=1)
    assert await asked(pool, "ping", owner=1) == first
    assert await asked(pool, "ping", owner=2) != first


async def test_a_project_waits_for_its_own_process_alone_and_a_caller_who_is_cancelled_ends_it(
    pool: WorkerPool, tmp_path: Path
) -> None:
    is_asked = tmp_path / "asked"
    first = await asked(pool, "ping")
    never = asyncio.create_task(asked(pool, f"never {is_asked}"))
    await until(is_asked.exists)
    waiting = asyncio.create_task(asked(pool, "ping"))
    current_project.set(2)
    for owner in (2, 3):
        assert await asked(pool, "ping", owner=owner)
    assert not waiting.done()
    never.cancel()
    await asyncio.wait([never])
    assert await waiting != first
    assert not pool.busy


async def test_a_process_knows_no_keys_of_the_server(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-very-secret-key")
    assert await asked(pool, "keys") == 0


async def test_a_caller_who_is_cancelled_before_a_process_is_there_ends_nobody(pool: WorkerPool) -> None:
    never = asyncio.create_task(asked(pool, "never /dev/null/none"))
    await asyncio.sleep(0)
    never.cancel()
    await asyncio.wait([never])
    assert await asked(pool, "ping")


async def test_the_limits_are_told_apart(pool: WorkerPool) -> None:
    with pytest.raises(LimitHit, match=r"^it took more than 50 ms to obey \(setting time\)"):
        await asked(pool, "compute", limit_ms=50)
    memory = r"more than 536,870,912 bytes of memory to obey, .*\(setting memory\)"
    with pytest.raises(LimitHit, match=memory):
        await asked(pool, f"hold {LIMIT_BYTES}")
    with pytest.raises(LimitHit, match="too much memory or time to obey; the limits are 3,600,000 ms"):
        await asked(pool, "claim")
    assert await asked(pool, "ping")


async def test_a_process_that_was_killed_or_taken_over_or_has_had_much_memory_is_replaced(
    pool: WorkerPool,
) -> None:
    killed = await asked(pool, "ping")
    ((_, process),) = pool.idle
    os.kill(killed, signal.SIGKILL)
    await until(lambda: not process.is_open)
    taken_over = await asked(pool, "linger")
    assert taken_over != killed
    large = await asked(pool, "ping")
    assert large != taken_over
    await until(lambda: not os.path.exists(f"/proc/{taken_over}"))
    assert await asked(pool, f"hold {PEAK_BYTES}") == large
    assert await asked(pool, "ping") != large


async def test_those_who_wait_for_what_processes_are_forked_from_are_answered_by_the_next(
    pool: WorkerPool,
) -> None:
    await asked(pool, "ping")
    assert pool.forker.pid is not None
    os.kill(pool.forker.pid, signal.SIGSTOP)
    waiting = [asyncio.create_task(pool.forker.open()) for _ in range(3)]
    await asyncio.sleep(0)
    os.kill(pool.forker.pid, signal.SIGKILL)
    for process in await asyncio.gather(*waiting):
        assert await process.exchange(b"ping", limit_ms=3_600_000)
        process.close()
    os.kill(pool.forker.pid, signal.SIGKILL)
    assert await asked(pool, "ping", owner=2), "who comes after that, too"


async def test_nothing_is_started_any_more_by_a_pool_that_is_closed(pool: WorkerPool) -> None:
    await pool.aclose()
    with pytest.raises(WorkerNotStarted):
        await asked(pool, "ping")
    assert pool.forker.pid is None


async def test_processes_end_with_what_they_were_forked_from(pool: WorkerPool) -> None:
    """As that does when the server is killed, which closes its socket as well."""
    await asked(pool, "ping")
    ((_, process),) = pool.idle
    await pool.forker.aclose()
    await until(lambda: not process.is_open)


async def test_a_process_that_does_not_read_is_given_up(pool: WorkerPool) -> None:
    await asked(pool, "ping")
    ((_, process),) = pool.idle
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerDied, match="time"):
        await process.exchange(b"x" * 10_000_000, limit_ms=20)
    await asyncio.to_thread(eventually, lambda: not os.path.exists(f"/proc/{process.pid}"))


async def test_where_no_process_starts_the_way_to_the_reason_is_told() -> None:
    async with WorkerPool("no_such_module:f", what="tests", memory_limit_bytes=LIMIT_BYTES) as pool:
        reason = r"no process for tests starts; `python .* no_such_module:f`"
        with pytest.raises(WorkerNotStarted, match=reason):
            await asked(pool, "ping")


RECURSIVE = {"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}}}
"""Not proved to be quick, and so judged in a process."""


def flow(**inputs: Any) -> Flow:
    return Flow(slug="f", inputs=inputs, steps=[LlmStep(id="a", model="echo", prompt="x")])


async def test_the_usual_request_and_answer_start_no_process() -> None:
    async with Checks() as checks:
        own = flow(type="object", properties={"n": {"type": "integer", "default": 1}})
        overrides = {"a": {"prompt": "y", "output_schema": {"type": "object"}}}
        changed, inputs = await checks.request(own, overrides, {}, size_bytes=100, project_id=1)
        assert inputs == {"n": 1}
        assert changed.steps[0].prompt == "y"  # type: ignore[union-attr]
        assert await checks.problems({"n": "x"}, {"properties": {"n": {"type": "integer"}}}, size_bytes=9)
        many = {str(number): 1 for number in range(9)}
        told = await checks.problems(many, {"additionalProperties": {"type": "null"}}, size_bytes=60)
        assert len(told) == 5, "the first five are told"
        assert await checks.smallest({"type": "object"}) == {}
        assert checks.forker.pid is None


@pytest.mark.parametrize("inputs", [{"n": 1}, {"n": "x"}, {"next": {"n": "x"}}, {}])
@pytest.mark.parametrize("overrides", [{}, {"a": {"prompt": "y"}}, {"b": {}}, {"a": {"model": "no"}}])
async def test_a_process_gives_the_same_answers_as_the_event_loop(
    overrides: dict[str, Any], inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def told() -> Any:
        own = flow(type="object", properties={"n": {"type": "integer"}, "next": {"type": "object"}})
        if inputs.get("next"):
            own = flow(type="object", properties={"next": {"properties": {"n": {"type": "integer"}}}})
        try:
            return await checks.request(own, overrides, inputs, size_bytes=100, project_id=1)
        except APIError as error:
            return error.code, error.message, error.step_id, error.details

    async with Checks() as checks:
        here = await told()
        monkeypatch.setattr(module, "check_request", Mock(side_effect=Unproved))
        assert await told() == here


async def test_a_check_that_takes_too_long_fails_its_step_and_the_next_one_is_served() -> None:
    async with Checks(Settings(check_time_limit_ms=300)) as checks:
        late = r"more than 300 ms .*\(setting check_time_limit_ms\)"
        with pytest.raises(StepFailure, match=late) as failed:
            await checks.smallest(doubling(40))
        assert (failed.value.code, failed.value.may_retry) == ("SCHEMA_LIMIT", False)
        assert await checks.problems({"next": {"n": 1}}, RECURSIVE, size_bytes=20) == []
        [told] = await checks.problems({"next": {"n": "x"}}, RECURSIVE, size_bytes=20)
        assert told == "`next.n`: expected an integer, found 'x'"


async def test_a_check_that_takes_too_much_memory_is_refused() -> None:
    async with Checks(Settings(check_memory_limit_bytes=128 << 20, check_time_limit_ms=60_000)) as checks:
        rows = {"rows": [[n] for n in range(600_000)]}
        with pytest.raises(APIError, match=r"setting check_memory_limit_bytes"):
            await checks.request(flow(**RECURSIVE), {}, rows, size_bytes=4_000_000, project_id=1)


async def test_a_project_holds_one_process_at_a_time() -> None:
    async with Checks(Settings(check_time_limit_ms=60_000)) as checks:
        own = flow(**doubling(40))
        given = doubling(40)["default"]
        slow = [
            asyncio.create_task(checks.request(own, {}, given, size_bytes=9, project_id=1)) for _ in range(3)
        ]
        await asyncio.sleep(0)
        await checks.request(flow(**RECURSIVE), {}, {}, size_bytes=2, project_id=2)
        assert not slow[1].done()
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)
