"""Health of a process whose store is silent: told after the time it is given, and good once it answers."""

import asyncio
from pathlib import Path

import pytest

from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.runtime.health import HealthCheck


@pytest.mark.parametrize(("method", "what"), [("project", "read"), ("check_write", "write")])
async def test_a_silent_store_is_told_and_kept_one_question_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, what: str
) -> None:
    async with open_runtime(Settings(data=tmp_path)) as runtime:
        speaks, asked = asyncio.Event(), 0

        async def silent(*_: object) -> None:
            nonlocal asked
            asked += 1
            await speaks.wait()

        monkeypatch.setattr(runtime.store, method, silent)
        check = HealthCheck(runtime, wait_s=0.0)
        reason = f"the store has not answered a {what} for 0 s"
        # The other one may not have been answered in no time either.
        assert reason in (await check.report()).reasons
        assert (await check.report()).status == "unavailable"
        readiness = await check.readiness()
        assert (readiness.status, reason in readiness.reasons) == ("unready", True)
        assert asked == 1
        speaks.set()
        patient = HealthCheck(runtime, wait_s=60.0)
        assert (await patient.report()).status == "ok"
