"""The health of a process: its store is silent, or its disk nearly full, and how often it looks."""

import shutil
from pathlib import Path

import pytest

from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.runtime.health import HealthCheck
from tests.faulty_store import FaultyStore


@pytest.mark.parametrize(("method", "what"), [("project", "read"), ("check_write", "write")])
async def test_a_silent_store_is_told_and_kept_one_question_waiting(
    tmp_path: Path, method: str, what: str
) -> None:
    async with open_runtime(Settings(data=tmp_path)) as runtime:
        faults = FaultyStore(runtime.store)
        asked, silent = faults.calls(method), faults.hold(method)
        check = HealthCheck(runtime, wait_s=0.0)
        reason = f"the store has not answered a {what} for 0 s"
        # The other one may not have been answered in no time either.
        assert reason in (await check.report()).reasons
        assert (await check.report()).status == "unavailable"
        readiness = await check.readiness()
        assert (readiness.status, reason in readiness.reasons) == ("unready", True)
        assert len(asked) == 1
        silent.let_go()
        patient = HealthCheck(runtime, wait_s=60.0)
        assert (await patient.report()).status == "ok"


async def test_a_disk_that_is_nearly_full_degrades_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=99_000_000))
    async with open_runtime(Settings(data=tmp_path)) as runtime:
        health = await HealthCheck(runtime, wait_s=60.0).report()
    assert (health.status, health.reasons) == ("degraded", ["the disk has 99 MB left"])
