"""A pool of processes whose module is the test's own: it takes messages, and answers none but one."""

import asyncio
from pathlib import Path

import pytest

from runglass.engine.workers.pool import WorkerPool
from tests.waiting import until

MODULE = """
import sys
import threading
from pathlib import Path

from runglass.engine.workers.limits import serve


def answer(message):
    if message == b"ping":
        return b"pong"
    Path(message.decode()).touch()
    threading.Event().wait()


serve(sys.stdin.buffer, sys.stdout.buffer, answer)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that answers `ping`; else it makes the file that it is told, and never answers."""
    (tmp_path / "never_answers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "never_answers"


async def test_a_caller_who_is_cancelled_ends_the_process_and_the_next_one_is_answered(
    module: str, tmp_path: Path
) -> None:
    """There is one process only: it would be asked for as long as its answer may take."""
    is_asked = tmp_path / "asked"
    pool = WorkerPool(
        module, what="tests", memory_limit_bytes=1 << 30, memory_setting="none", max_processes=1
    )

    async def asked(message: bytes) -> bytes:
        return await pool.asked(lambda: message, bytes, what="", limit_ms=3_600_000, setting="none")

    async with pool:
        assert await asked(b"ping") == b"pong"
        never = asyncio.create_task(asked(bytes(is_asked)))
        await until(is_asked.exists)
        never.cancel()
        await asyncio.wait([never])
        assert await asked(b"ping") == b"pong"
