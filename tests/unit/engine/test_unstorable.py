"""Runs whose store fails in ways that do not pass, or at the worst moment: each ends, and says how."""

import sqlite3
from pathlib import Path

import pytest

from runglass.errors import APIError, CommitUncertain, StoreError
from runglass.log.events import FlowFailed
from runglass.store.sqlite.store import SqliteStore
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import (
    EngineHarness,
    Execute,
    follow,
    open_harness,
    read,
    run_of,
    run_to_end,
    start,
)

GROWING = """
  - {id: fine, type: passthrough}
  - {id: large, type: code, code: 'return {"text": "x" * 50000}'}
  - {id: after, type: passthrough}
"""
ONE = "  - {id: only, type: passthrough}"


async def limit_values(house: EngineHarness, size: int) -> None:
    await house.store.connections.write(lambda db: db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size))


async def test_a_run_with_an_output_that_is_too_large_for_the_store_fails_with_that_reason(
    house: EngineHarness, execute: Execute
) -> None:
    await limit_values(house, 40_000)
    ran = await execute(GROWING)
    assert ran.outcome.status == "failed"
    assert ran.outcome.step_id == "large"
    assert ran.outcome.error == {
        "code": "OUTPUT_TOO_LARGE",
        "message": "the run cannot be recorded: string or blob too big",
    }
    last = ran.events[-1]
    assert isinstance(last, FlowFailed)
    assert (last.error, last.step_id) == (ran.outcome.error, "large")
    assert ran.steps() == [("fine", None, 1, "completed"), ("large", None, 1, "failed")]
    await house.engine.claims.keep_lease()
    assert not house.engine.active.is_active(ran.id)
    run = await run_of(house, ran.id)
    assert await house.store.outcome(run.no) == (
        None,
        b'{"code":"OUTPUT_TOO_LARGE","message":"the run cannot be recorded: string or blob too big"}',
    )
    assert (await execute(ONE)).outcome.status == "completed"


async def test_a_fault_inside_of_the_store_ends_the_run_and_stays_inside(
    house: EngineHarness, execute: Execute
) -> None:
    inside = ZeroDivisionError("a secret of the inside")
    FaultyStore(house.store).fail("append", inside, nth=2, times=1)
    ran = await execute(GROWING)
    assert ran.outcome.error == {
        "code": "INTERNAL_ERROR",
        "message": "the run cannot be recorded: see the server's log",
    }
    assert ran.types()[-1] == "flow_failed"
    assert "running" not in [step.status for step in ran.trace.steps]


def ambiguous(path: Path, *, commits: bool, unreadable: int = 0) -> SqliteStore:
    """A store whose COMMIT of a new run fails, after all or before; `unreadable` for so many reads then."""
    store = SqliteStore(path, synchronous="NORMAL")
    faults = FaultyStore(store)
    faults.fail("create_run", CommitUncertain("disk I/O error"), commits=commits)
    faults.fail("run", StoreError("disk I/O error"), times=unreadable)
    return store


async def test_a_run_whose_commit_failed_and_was_made_goes_on(tmp_path: Path) -> None:
    async with open_harness(ambiguous(tmp_path / "db", commits=True)) as house:
        ran = await run_to_end(house, ONE)
    assert ran.types()[-1] == "flow_completed"


@pytest.mark.parametrize("commits", [True, False])
async def test_a_run_of_an_uncertain_commit_is_answered_with_its_id_and_goes_on_if_it_is_stored(
    tmp_path: Path, commits: bool
) -> None:
    async with open_harness(ambiguous(tmp_path / "db", commits=commits, unreadable=1)) as house:
        with pytest.raises(APIError) as caught:
            await start(house, ONE)
        assert caught.value.code == "INTERNAL_ERROR"
        run_id = caught.value.execution_id
        assert run_id is not None
        await house.engine.claims.keep_lease()
        if commits:
            await follow(house, run_id)
            assert (await read(house, run_id)).types()[-1] == "flow_completed"
        else:
            assert await house.store.run(run_id) is None
        await house.engine.claims.keep_lease()
