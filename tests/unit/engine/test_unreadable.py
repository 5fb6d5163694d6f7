"""Rows that cannot be decoded or stored: their run is set aside or ends, says how, and stops no other."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from runglass.errors import APIError, CommitUncertain, StoreError
from runglass.log.events import FlowFailed
from tests.faulty_store import FaultyStore
from tests.unit.engine.conftest import EngineHarness, Execute, next_life, open_harness
from tests.unit.engine.test_crashes import die_at

FLOW = """
  - {id: one, type: passthrough}
  - {id: two, type: wait, ms: 1}
  - {id: three, type: passthrough}
"""
GARBAGE = [b"\xff\x00", b"{", b"[1]", b'"text"', b"\x00" * 100, b"[" * 5000]
UPDATES = {
    "summary": "UPDATE run SET summary = ? WHERE id = ?",
    "request": "UPDATE run_request SET request = ? WHERE run_no = (SELECT no FROM run WHERE id = ?)",
    "checkpoint": "UPDATE checkpoint SET data = ? WHERE run_no = (SELECT no FROM run WHERE id = ?)",
    "step": "UPDATE step SET data = ? WHERE run_no = (SELECT no FROM run WHERE id = ?)",
    "event": "UPDATE event SET data = ? WHERE run_no = (SELECT no FROM run WHERE id = ?)",
}


def spoil(path: Path, sql: str, value: bytes, run_id: str) -> None:
    with sqlite3.connect(path) as database:
        assert database.execute(sql, (value, run_id)).rowcount >= 1
    database.close()


@pytest.mark.parametrize(
    ("what", "garbage"),
    [
        (what, garbage)
        for what in UPDATES
        for garbage in GARBAGE
        # A checkpoint may hold any JSON.
        if what != "checkpoint" or garbage not in (b"[1]", b'"text"')
    ],
)
async def test_a_run_that_cannot_be_read_is_set_aside_and_the_others_go_on(
    tmp_path: Path, what: str, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """They were left off while their second step went on, with a checkpoint of the first."""
    path = tmp_path / "db"
    broken, good = await die_at(path, 4, FLOW), await die_at(path, 4, FLOW)
    spoil(path, UPDATES[what], garbage, broken)
    async with next_life(path) as house:
        assert len(house.engine.active.set_aside) == 1
        (said,) = [record for record in caplog.records if "quarantined" in record.getMessage()]
        assert broken in said.getMessage()
        assert (await house.read_at_end(good)).types()[-1] == "flow_completed"
        for _ in range(3):
            await house.engine.claims.keep_lease()
        assert (await house.run_of(broken)).claims == 1, "it is claimed again and again"
        assert len([record for record in caplog.records if "quarantined" in record.getMessage()]) == 1
        assert (await house.start(FLOW)).id
    # Nothing of it has been dropped, and the next start gives it another chance.
    async with open_harness(path) as house:
        assert len(house.engine.active.set_aside) == 1
        run = await house.run_of(broken)
        assert await house.store.request(run.no) is not None
        assert await house.store.checkpoints(run.no) != []


@pytest.mark.parametrize("what", ["summary", "event"])
async def test_a_paused_run_that_cannot_be_read_does_not_keep_others_from_being_put_away(
    house: EngineHarness, what: str
) -> None:
    ids = [(await house.start_paused(FLOW)).id for _ in range(3)]
    spoil(house.store.connections.path, UPDATES[what], b"\x00garbage", ids[0])
    await house.clock.sleep(3600 * 30)
    housekeeping = house.maintenance()
    await housekeeping.tidy()
    await housekeeping.tidy()
    statuses = [(await house.run_of(run_id)).status for run_id in ids]
    # When a run has paused only its last event says.
    assert statuses == ["paused" if what == "event" else "cancelled", "cancelled", "cancelled"]
    assert len(house.engine.active.set_aside) == (what == "event")


GROWING = """
  - {id: fine, type: passthrough}
  - {id: large, type: code, code: 'return {"text": "x" * 50000}'}
  - {id: after, type: passthrough}
"""
ONE = "  - {id: only, type: passthrough}"


async def test_a_run_with_an_output_that_is_too_large_for_the_store_fails_with_that_reason(
    house: EngineHarness, execute: Execute
) -> None:
    await house.store.connections.write(lambda db: db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 40_000))
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
    run = await house.run_of(ran.id)
    assert await house.store.outcome(run.no) == (None, msgspec.json.encode(ran.outcome.error))
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


async def test_a_run_whose_commit_failed_and_was_made_goes_on(house: EngineHarness, execute: Execute) -> None:
    FaultyStore(house.store).fail("create_run", CommitUncertain("disk I/O error"), commits=True)
    assert (await execute(ONE)).types()[-1] == "flow_completed"


@pytest.mark.parametrize("commits", [True, False])
async def test_a_run_of_an_uncertain_commit_is_answered_with_its_id_and_goes_on_if_it_is_stored(
    house: EngineHarness, commits: bool
) -> None:
    faults = FaultyStore(house.store)
    faults.fail("create_run", CommitUncertain("disk I/O error"), commits=commits)
    faults.fail("run", StoreError("disk I/O error"), times=1)
    with pytest.raises(APIError) as caught:
        await house.start(ONE)
    assert caught.value.code == "INTERNAL_ERROR"
    run_id = caught.value.execution_id
    assert run_id is not None
    await house.engine.claims.keep_lease()
    if commits:
        assert (await house.read_at_end(run_id)).types()[-1] == "flow_completed"
    else:
        assert await house.store.run(run_id) is None
    await house.engine.claims.keep_lease()
