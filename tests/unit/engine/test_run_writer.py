"""The writer: seq and time, one append per turn, what happens when the store refuses; and ids of runs."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from runglass.bus.base import Bus, progress_of, runs_of
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.run.idle_runs import RunIds
from runglass.engine.steps.model_turn import TextBatcher
from runglass.engine.steps.run_context import MOST_BYTES, LiveOutputs
from runglass.errors import StoreError
from runglass.log.events import FlowCancelled, LoopStarted, RunStarted, StepCompleted, StepStarted
from runglass.log.fold import RunFold
from runglass.log.measurements import measured
from runglass.log.trace import RunSummary
from runglass.store.records import Checkpoint, RunRecord
from runglass.store.sqlite.store import SqliteStore
from runglass.wire.query import created_ms, first_id
from tests.conformance.stores import make_run
from tests.fakes import VirtualClock
from tests.faulty_store import FaultyStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path / "db") as opened:
        yield opened


@pytest.fixture
def faults(store: SqliteStore) -> FaultyStore:
    return FaultyStore(store)


@pytest.fixture
async def run(store: SqliteStore) -> RunRecord:
    return await make_run(store)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def writer(store: SqliteStore, run: RunRecord, bus: Bus) -> RunWriter:
    fold = RunFold(RunSummary(id="r", flow_id="f", status="pending"))
    return RunWriter(store, bus, run, fold, VirtualClock())


def run_started() -> RunStarted:
    return RunStarted(execution_id="r", run_id="r", flow_id="f", step_count=1, trigger_type="api", version=0)


def started(step_id: str = "a") -> StepStarted:
    return StepStarted(execution_id="r", step_id=step_id, step_index=0, attempt=1)


def completed(step_id: str = "a") -> StepCompleted:
    return StepCompleted(execution_id="r", step_id=step_id, step_index=0, attempt=1, duration_ms=1)


async def stored(store: SqliteStore, run: RunRecord) -> list[bytes]:
    return [data for _, data in await store.events(run.no, after=0, limit_bytes=1 << 20)]


async def test_events_are_stored_without_a_commit_and_one_can_wait_for_the_next(
    store: SqliteStore, run: RunRecord, writer: RunWriter, faults: FaultyStore
) -> None:
    appends, appended = faults.calls("append"), asyncio.Event()
    writer.record(run_started())
    await writer.commit()
    begun = LoopStarted(execution_id="r", step_id="l", iterations=2, step_ids=["a"])
    writer.record_with_next(begun, checkpoint=Checkpoint("l?", "", b"[1,2]"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(appends) == 1
    writer.record(started())
    faults.after("append", lambda _: appended.set())
    await appended.wait()
    assert [len(call.args[0].events) for call in appends] == [1, 2]
    assert await store.checkpoints(run.no) == [Checkpoint("l?", "", b"[1,2]")]
    writer.record_with_next(msgspec.structs.replace(begun, seq=0))
    await writer.close()
    assert len(await stored(store, run)) == 4, "none is left behind where no other follows"


async def test_listeners_hear_of_an_event_after_it_is_stored(
    store: SqliteStore, run: RunRecord, writer: RunWriter, bus: Bus
) -> None:
    heard: list[tuple[str, int]] = []

    async def hear(subject: str) -> None:
        heard.append((subject, len(await stored(store, run))))

    FaultyStore(bus).before("wake", hear)
    writer.record(run_started())
    await writer.commit()
    project = runs_of(run.project_id)
    assert heard == [(run.id, 1), (project, 1)]
    writer.record(started())
    await writer.commit()
    assert heard[2:] == [(run.id, 2)], "the list hears of changes of the status alone"
    writer.record(FlowCancelled(execution_id="r", run_id="r", reason="enough"))
    await writer.commit()
    assert heard[3:] == [(run.id, 3), (project, 3), (progress_of(run.id), 3)]


async def test_a_waiter_that_is_cut_off_loses_nothing(
    store: SqliteStore, run: RunRecord, writer: RunWriter
) -> None:
    writer.record(run_started())
    waiter = asyncio.create_task(writer.commit())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait({waiter})
    writer.record(FlowCancelled(execution_id="r", run_id="r", reason="stop"))
    await writer.commit()
    assert len(await stored(store, run)) == 2


async def test_a_store_that_refuses_once_ends_the_recording(
    store: SqliteStore, run: RunRecord, writer: RunWriter, faults: FaultyStore
) -> None:
    stored_before, failed_before = sum(measured.append_s.counts), measured.failed_appends
    writer.record(run_started())
    await writer.commit()
    faults.fail("append", StoreError("the disk is full"), times=1)
    writer.record(started())
    with pytest.raises(StoreError, match="the disk is full"):
        await writer.commit()
    counted = sum(measured.append_s.counts) - stored_before, measured.failed_appends - failed_before
    assert counted == (1, 1), "one append is timed, and one that fails is only counted"
    writer.record(completed())
    with pytest.raises(StoreError, match="the disk is full"):
        await writer.commit()
    assert len(await stored(store, run)) == 1, "a hole in the log would be worse than its end"


async def test_a_stored_append_is_good_though_the_bus_fails(
    store: SqliteStore, run: RunRecord, writer: RunWriter, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    FaultyStore(bus).fail("wake", ConnectionError("the broker is away"))
    for event in (run_started(), started()):
        writer.record(event)
        await writer.commit()
    assert len(await stored(store, run)) == 2
    assert caplog.messages == [f"readers of run {run.id} could not be woken"] * 2


async def test_await_previous_append_lets_the_recorder_be_one_append_ahead(
    store: SqliteStore, run: RunRecord, writer: RunWriter, faults: FaultyStore
) -> None:
    appends = faults.calls("append")
    writer.record(run_started())
    await writer.await_previous_append()
    assert len(appends) <= 1, "nothing was on its way, so there was nothing to wait for"
    writer.record(started())
    await writer.await_previous_append()
    assert len(await stored(store, run)) >= 1
    writer.record(completed())
    await writer.await_previous_append()
    assert len(await stored(store, run)) >= 2
    await writer.commit()
    assert len(await stored(store, run)) == 3


async def test_the_last_text_is_recorded_though_leaving_is_cut_off() -> None:
    recorded: list[str] = []

    async def attempt() -> None:
        async with TextBatcher(recorded.append, VirtualClock(), most=100) as stream:
            stream.write("first")
            stream.write("last")
            asyncio.get_running_loop().call_soon(task.cancel)

    task = asyncio.create_task(attempt())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "".join(recorded) == "firstlast"


def test_outputs_beyond_the_limit_are_read_from_the_store_while_there_is_a_caller() -> None:
    outputs = LiveOutputs()
    assert outputs.keep(1, b"x" * MOST_BYTES), "one is always held"
    assert not outputs.keep(2, b"y")
    assert outputs.pop(1) == b"x" * MOST_BYTES
    assert outputs.keep(3, b"z")
    assert (outputs.pop(2), outputs.stored) == (None, {2})
    outputs.close()
    assert outputs.keep(4, b"y" * 2 * MOST_BYTES), "it needs no place in the store"
    assert (outputs.pop(3), outputs.pop(4)) == (None, None)


def test_ids_have_their_time_rise_and_are_of_this_process_though_the_clock_is_set_back() -> None:
    clock = VirtualClock()
    now_ms = round(clock.now().timestamp() * 1000)
    ids, other = RunIds(clock), RunIds(clock)
    given = [ids.next() for _ in range(1000)]
    assert not {*given} & {other.next() for _ in range(1000)}
    clock.set_back(timedelta(hours=1).total_seconds())
    given += [ids.next() for _ in range(1000)]
    assert given == sorted(set(given))
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in given} == {(7, uuid.RFC_4122)}
    assert {created_ms(each) for each in given} == {now_ms}
    assert first_id(now_ms) <= given[0] < given[-1] < first_id(now_ms + 1)
    clock.set_back(-timedelta(hours=1, seconds=5).total_seconds())
    assert created_ms(ids.next()) == now_ms + 5000
