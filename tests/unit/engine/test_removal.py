"""When runs and their content go, by whose word, and that it goes on beside everything else."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from runglass.config.settings import Settings
from runglass.engine.maintenance.removal import AT_ONCE, BATCH_ROWS, SCRUBS, RunRemoval
from runglass.errors import StoreError
from runglass.store.records import Retention, RunRecord
from runglass.support.clock import Clock, iso
from runglass.wire.admin_api import SERVER
from tests.conformance.stores import batch
from tests.faulty_store import FaultyStore
from tests.records import new_recording, new_run, there
from tests.unit.engine.conftest import EngineHarness, Execute
from tests.unit.engine.test_store_check import GatedClock
from tests.waiting import until

DAY_S = 86_400.0
GRACE_S = 5.0
STEPS = """
  - {id: first, type: passthrough}
  - id: bad
    type: code
    on_error: continue
    retry: {max_attempts: 2, initial_delay_ms: 0}
    code: raise ValueError(initial["x"])
  - {id: last, type: llm, model: echo, prompt: "{{ initial.x }}"}
"""


def removal_in(
    house: EngineHarness, clock: Clock | None = None, batch_rows: int = BATCH_ROWS, **settings: Any
) -> RunRemoval:
    return RunRemoval(
        store=house.store,
        engine=house.engine,
        clock=clock or house.clock,
        settings=Settings(**settings),
        batch_rows=batch_rows,
    )


@pytest.fixture
async def run(house: EngineHarness, execute: Execute) -> RunRecord:
    """One that has ended, and whose content is kept."""
    return await house.run_of((await execute(STEPS, {"x": "sesame"})).id)


async def is_gone(house: EngineHarness, run: RunRecord) -> bool:
    return await house.store.steps(run.no) == []


@pytest.mark.parametrize(
    ("flow", "project", "server", "gone"),
    [
        (None, None, None, False),
        (None, None, 9.9, True),
        (None, None, 10.1, False),
        (None, None, timedelta.max.days, False),
        (None, 15.0, 5.0, False),
        (None, 0.0, 15.0, True),
        (15.0, 5.0, 5.0, False),
        (5.0, 15.0, 15.0, True),
        (0.0, 15.0, 15.0, True),
    ],
)
async def test_the_days_of_a_flow_count_else_those_of_its_project_else_those_of_the_server(
    house: EngineHarness,
    run: RunRecord,
    flow: float | None,
    project: float | None,
    server: float | None,
    gone: bool,
) -> None:
    unreadable = new_run(run.project_id, run.flow_id, id=house.engine.ids.next())
    await house.store.create_run(unreadable)
    house.engine.active.put_aside(unreadable.id, ValueError("garbage"))

    async def removal(kind: str) -> RunRemoval:
        """Of runs after so many `days`, or of their content after so many `content_days`."""
        retention = Retention(**{kind: flow})
        await house.store.put_draft(
            run.project_id, "test", name=None, capture=None, source=b"{}", retention=retention
        )
        await house.store.set_retention(run.project_id, Retention(**{kind: project}))
        settings: dict[str, Any] = {f"{kind.removesuffix('days')}retention_days": server}
        return removal_in(house, **settings)

    await house.clock.sleep(10 * DAY_S)
    await (await removal("content_days")).tidy()
    assert (b"sesame" not in b"".join(await house.stored_events(run))) is gone
    due = await removal("days")
    await due.tidy()
    await due.tidy_set_aside()
    assert [await house.store.run(each) is None for each in (run.id, unreadable.id)] == [gone, gone]


async def test_plain_runs_go_after_a_day_whatever_their_flow_says(house: EngineHarness) -> None:
    now = iso(house.clock.now())
    project = await house.store.ensure_project("acme", "demo")
    flow = await house.store.recorded_flow(project.id, "otel", most=1)
    await house.store.set_retention(project.id, Retention(days=30))
    for trigger in ("plain", "recorded"):
        about = {"trigger_type": trigger, "trace_id": trigger, "due_at": now}
        new = new_recording(project.id, flow.id, id=trigger, **about)
        made = there(await house.store.create_recording(new))
        await house.store.append(batch(made, 0, b"{}", status="completed", ended_at=now))
    removal = removal_in(house)
    await house.clock.sleep(0.9 * DAY_S)
    await removal.tidy()
    assert await house.store.run("plain") is not None
    await house.clock.sleep(0.2 * DAY_S)
    await removal.tidy()
    assert await house.store.run("plain") is None
    assert await house.store.run("recorded") is not None


async def test_more_than_are_looked_up_at_once_all_go_those_that_cannot_be_read_among_them(
    house: EngineHarness, execute: Execute
) -> None:
    ran = await execute("  - {id: keep, type: passthrough}", {"x": "sesame"})
    good = await house.run_of(ran.id)

    async def unreadable(number: int) -> RunRecord:
        """One that ended before the good one, and so comes first."""
        run = await house.store.create_run(new_run(good.project_id, good.flow_id, id=f"odd-{number}"))
        ended_at = "2020-01-01T00:00:00.000Z"
        await house.store.append(batch(run, 0, b'{"sesame"', status="failed", ended_at=ended_at))
        return run

    runs = [*await asyncio.gather(*map(unreadable, range(AT_ONCE + 1))), good]
    await house.clock.sleep(8 * DAY_S)
    await removal_in(house, content_retention_days=7).tidy()
    for run in runs:
        assert b"sesame" not in b"".join(await house.stored_events(run))
    bites = [FaultyStore(house.store).calls(method) for method in ("purge_runs", "purge_rows")]
    await removal_in(house, retention_days=7).tidy()
    assert [await house.store.run(run.id) for run in runs] == [None] * len(runs)
    assert all(len(each) < len(runs) / 20 for each in bites), "they go many together"


async def test_removal_rests_as_long_as_a_batch_has_taken(house: EngineHarness, run: RunRecord) -> None:
    took_s = 0.125
    FaultyStore(house.store).before("purge_rows", lambda runs, **limits: house.clock.set_back(-took_s))
    removal = removal_in(house, batch_rows=3)
    assert await removal.purge(run, by=SERVER)
    house.clock.slept_s.clear()
    await removal.tidy()
    assert house.clock.slept_s.count(took_s) > 5


async def test_a_purge_wakes_the_removal_of_what_is_left(house: EngineHarness, run: RunRecord) -> None:
    # On its clock no minute ends.
    removal, has_begun = removal_in(house, GatedClock()), asyncio.Event()
    FaultyStore(house.store).before("compact", lambda *, limit_bytes: has_begun.set())
    removing = asyncio.create_task(removal.run_forever())
    await has_begun.wait()
    assert await removal.purge(run, by=SERVER)
    await until(lambda: is_gone(house, run))
    removing.cancel()
    await asyncio.wait({removing})


async def test_a_reader_in_the_way_of_the_overwriting_is_waited_for_a_while_and_then_told(
    house: EngineHarness, run: RunRecord, caplog: pytest.LogCaptureFixture
) -> None:
    removal = removal_in(house)
    assert await removal.purge(run, by=SERVER)
    with FaultyStore(house.store) as faults:
        faults.answer("scrub", False, times=SCRUBS - 1)
        await removal.finish()
        assert caplog.messages == []
        assert await is_gone(house, run)

        faults.answer("scrub", False)
        await removal.finish()
        faults.fail("scrub", StoreError("no disk"))
        await removal.finish()
    told = "the runs are deleted, but the store cannot be overwritten yet: %s; the next server does it"
    assert caplog.messages == [told % "another process is reading it", told % "no disk"]


async def test_the_rows_of_each_purged_run_stay_for_a_while_even_amid_the_removal_of_another(
    house: EngineHarness, execute: Execute, run: RunRecord
) -> None:
    """A reader who follows a run that is purged while it goes on has yet to read its last event."""
    runs = [run, await house.run_of((await execute(STEPS, {"x": "sesame"})).id)]
    removal = removal_in(house)
    purged_s: dict[int, float] = {}
    stayed_s: dict[int, float] = {}

    async def purge(run: RunRecord) -> None:
        assert await removal.purge(run, by=SERVER)
        purged_s[run.no] = house.clock.monotonic_s()

    async def purge_the_other(numbers: list[int], **limits: Any) -> None:
        for run_no in numbers:
            stayed_s.setdefault(run_no, house.clock.monotonic_s() - purged_s[run_no])
        if len(purged_s) == 1:
            await purge(runs[1])

    FaultyStore(house.store).before("purge_rows", purge_the_other)
    await purge(runs[0])
    await removal.tidy(grace_s=GRACE_S)
    assert await is_gone(house, runs[0])
    assert len(await house.stored_events(runs[1])) == runs[1].head
    await removal.tidy(grace_s=GRACE_S)
    assert await is_gone(house, runs[1])
    assert all(stayed >= GRACE_S for stayed in stayed_s.values())


async def test_a_store_that_fails_is_tried_again_and_a_run_set_aside_keeps_no_other_from_going(
    house: EngineHarness, run: RunRecord, caplog: pytest.LogCaptureFixture
) -> None:
    await house.clock.sleep(2 * DAY_S)
    removal = removal_in(house, retention_days=1)
    house.engine.active.put_aside("stuck", ValueError("garbage"))
    faults = FaultyStore(house.store)
    faults.fail("retentions", StoreError("not now"), times=1)
    faults.fail("run", StoreError("it cannot be ended"))
    looked_up = faults.calls("run")
    with caplog.at_level(logging.WARNING, logger="runglass"):
        removing = asyncio.create_task(removal.run_forever())
        await until(lambda: looked_up)
        removing.cancel()
        await asyncio.wait({removing})
    faults.mend("run")
    assert await house.store.run(run.id) is None
    assert "removing runs that are due failed, and is retried: not now" in caplog.text
