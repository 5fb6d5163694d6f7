"""What other programs send is on disk, once, when it is acknowledged, and a run ends when nothing comes."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from runglass.bus.base import Bus
from runglass.engine.capture.capture import Capture, Redactor
from runglass.engine.run.idle_runs import RunIds
from runglass.errors import StoreError
from runglass.log.events import FlowFailed, StepRecorded, StreamEvent, decode_event
from runglass.log.fold import fold
from runglass.log.trace import RunSummary, StepTrace, Trace
from runglass.recording.received import ReceivedSpan, Refused, SpanEvent
from runglass.recording.recordings import DELETED, TOO_MANY_OPEN, UNREADABLE, Recordings
from runglass.recording.settling import WRITER_LOST, Settling
from runglass.recording.span_worker import Piece, Received, pieces_of
from runglass.store.base import Store
from runglass.store.records import Project, RunRecord
from runglass.wire.admin_api import SERVER
from runglass.wire.run_api import CaptureMode
from tests.conformance.stores import ALL_STORES, store_kinds
from tests.fakes import VirtualClock
from tests.faulty_store import FaultyStore
from tests.records import there
from tests.unit.recording import emitted

SETTLE_S, IDLE_S = 60.0, 900.0
TRACE, OTHER = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319c"
BEGAN_NS = 1_750_000_000_000_000_000
SECRET = "sk-proj-" + "a1B2c3D4" * 6


def span(
    span_id: int, parent: int | None = None, *, trace_id: str = TRACE, name: str = "work", **fields: Any
) -> ReceivedSpan:
    """A span that began at its id, in seconds, and has ended."""
    attributes = {"gen_ai.operation.name": "execute_tool", **fields.pop("attributes", {})}
    whole: dict[str, Any] = {
        "trace_id": trace_id,
        "span_id": f"{span_id:016x}",
        "parent_id": None if parent is None else f"{parent:016x}",
        "name": name,
        "start_ns": BEGAN_NS + span_id * 10**9,
        "end_ns": BEGAN_NS + (span_id + 1) * 10**9,
        "resource": {"service.name": "shop"},
        **fields,
    }
    return emitted.span({key: value for key, value in attributes.items() if value is not None}, **whole)


async def in_pieces(*requests: Iterable[Received], flow: str | None = None) -> AsyncIterator[Piece]:
    """The pieces of a request."""
    capture = Capture("redacted", limit_bytes=4096, redactor=Redactor())
    for items in requests:
        for piece in pieces_of(items, flow=flow, capture=capture):
            yield piece


class House(NamedTuple):
    """Recordings on a store, with a clock of their own."""

    store: Store
    recordings: Recordings
    settling: Settling
    clock: VirtualClock
    project: Project

    async def record(self, *items: Received, flow: str | None = None) -> list[Refused]:
        recorded = await self.recordings.record(self.project, in_pieces(items, flow=flow))
        return [Refused(reason, times) for reason, times in recorded.refused.items()]

    async def run(self, trace_id: str = TRACE) -> RunRecord:
        """The newest run of the trace."""
        return there((await self.store.recorded_traces(self.project.id, [trace_id]))[trace_id])

    async def events(self, trace_id: str = TRACE) -> list[StreamEvent]:
        run = await self.run(trace_id)
        stored = await self.store.events(run.no, after=0, limit_bytes=1 << 30)
        assert [seq for seq, _ in stored] == list(range(1, run.head + 1))
        return [decode_event(data) for _, data in stored]

    async def trace(self, trace_id: str = TRACE) -> Trace:
        """The fold of its events, which is what the rows of its steps say."""
        trace = fold(await self.events(trace_id))
        rows = await self.store.steps((await self.run(trace_id)).no)
        assert [(row.step_id, row.status) for row in rows] == [
            (step.step_id, step.status) for step in trace.steps
        ]
        return trace

    async def continues(self) -> str | None:
        """The run that the newest one of the trace continues."""
        return there((await self.trace()).flow_run.recording).continues

    async def step(self, span_id: int, trace_id: str = TRACE) -> StepTrace:
        steps = (await self.trace(trace_id)).steps
        return next(step for step in steps if step.span_id == f"{span_id:016x}")

    async def time_passes(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        await self.settling.settle()


async def open_house(
    store: Store,
    *,
    clock: VirtualClock | None = None,
    is_alone: bool = True,
    capture: CaptureMode | None = None,
) -> House:
    """On this store, which is open; `capture` is what the project says."""
    clock = clock or VirtualClock()
    project = await store.ensure_project("acme", "demo")
    if capture is not None:
        await store.set_capture(project.id, capture, by=SERVER)
        project = await store.ensure_project("acme", "demo")
    recordings = Recordings(
        store=store,
        bus=Bus(),
        clock=clock,
        new_id=RunIds(clock).next,
        make_capture=cache(partial(Capture, limit_bytes=4096, redactor=Redactor())),
        settle=timedelta(seconds=SETTLE_S),
        most_flows=3,
        is_alone=is_alone,
    )
    settling = Settling(
        store=store,
        recordings=recordings,
        clock=clock,
        settle=timedelta(seconds=SETTLE_S),
        idle=timedelta(seconds=IDLE_S),
    )
    return House(store, recordings, settling, clock, project)


@pytest.fixture(params=store_kinds(*(ALL_STORES.keys() - {"sqlite", "postgres"})))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with ALL_STORES[request.param](tmp_path) as store:
        yield store


@pytest.fixture
async def house(store: Store) -> House:
    return await open_house(store)


async def test_start_end_and_late_log_are_one_step(house: House) -> None:
    log = emitted.log("note", "hello", span_id=f"{1:016x}")
    await house.record(log)
    await house.record(span(1, name="first", end_ns=0))
    assert (await house.step(1)).status == "running"
    await house.record(span(1, name="first"), span(2, name="first"))
    assert [(step.step_id, step.loop_path) for step in (await house.trace()).steps] == [
        ("first", (0,)),
        ("first", (1,)),
    ]
    assert (await house.step(1)).status == "completed"


async def test_a_run_counts_the_bytes_that_it_has(house: House) -> None:
    """Else what is left of them once content was removed would be far too much."""
    log = emitted.log("note", "hello " * 99, span_id=f"{1:016x}")
    await house.record(log, span(2, end_ns=0))
    await house.record(span(1), span(2))
    await house.record(log._replace(at_ns=log.at_ns + 1), span(2, attributes={"late": "x" * 999}))
    run = await house.run()
    events = await house.store.events(run.no, after=0, limit_bytes=1 << 30)
    rows = await house.store.steps(run.no)
    assert run.log_bytes == sum(len(data) for _, data in events) + sum(len(row.data) for row in rows)


async def test_one_trace_id_in_two_projects_is_two_runs(house: House, store: Store) -> None:
    other = house._replace(project=await store.ensure_project("acme", "other"))
    for number, each in enumerate((house, other), 1):
        await each.record(span(number))
        assert [step.span_id for step in (await each.trace()).steps] == [f"{number:016x}"]
    assert len((await house.trace()).steps) == 1


async def test_flows_are_named_by_header_attribute_and_service(house: House) -> None:
    def named(trace: int, **attributes: str) -> ReceivedSpan:
        resource = {"service.name": "Über Shop!"} if trace < 4 else {}
        return span(1, trace_id=f"{trace:032x}", attributes=attributes, resource=resource)

    await house.record(named(1), named(2, **{"runglass.flow": "mine"}), named(4))
    await house.record(named(3), flow="asked")
    slugs = [(await house.trace(f"{trace:032x}")).flow_run.flow_slug for trace in (1, 2, 3, 4)]
    assert slugs == ["ber-shop", "mine", "otel", "otel"], "three flows are the most here"


async def test_content_is_redacted_and_cut_unless_project_or_flow_say_otherwise(store: Store) -> None:
    attributes = {"note": f"my key is {SECRET}", "long": "word " * 4000}
    house = await open_house(store)
    assert await house.record(span(1, attributes=attributes)) == []
    step = await house.step(1)
    assert SECRET not in str(step)
    assert step.truncated
    assert "note" in there(step.attributes)
    # Without a secret, too.
    await house.record(span(2, attributes={"long": "word " * 4000}), span(3))
    assert [(await house.step(number)).truncated for number in (2, 3)] == [True, False]
    house = await open_house(store, capture="metadata_only")
    await house.record(span(1, trace_id=OTHER, attributes=attributes))
    step = await house.step(1, OTHER)
    assert (step.name, step.attributes, step.status) == ("work", None, "completed")


async def test_a_trace_keeps_no_more_open_spans_than_memory_has_room_for(store: Store) -> None:
    def large(number: int, **fields: Any) -> ReceivedSpan:
        return span(number, name="x" * 4_000_000, **fields)

    # Nobody looks for secrets in all of that.
    house = await open_house(store, capture="full")
    refused = await house.record(*(large(number, end_ns=0) for number in range(1, 12)), span(99))
    assert refused == [Refused(TOO_MANY_OPEN, 2)]
    assert await house.record(large(11), span(1, name="1")) == []
    assert (await house.step(11)).status == (await house.step(1)).status == "completed"
    assert await house.record(large(10, end_ns=0)) == [], "there is room again"


@pytest.mark.parametrize("capture", ["off", "metadata_only", "redacted"])
async def test_names_are_kept_without_secrets(store: Store, capture: CaptureMode) -> None:
    told = ("gen_ai.agent.name", "error.type", "gen_ai.response.id", "langfuse.trace.tags")
    attributes = {"gen_ai.operation.name": "invoke_agent", **dict.fromkeys(told, SECRET)}
    house = await open_house(store, capture=capture)
    await house.record(
        span(1, name=f"GET /?key={SECRET}", attributes=attributes, status=2),
        span(2, 1, attributes=attributes | {"gen_ai.operation.name": "chat"}, status=2),
    )
    run = await house.run()
    events = await house.store.events(run.no, after=0, limit_bytes=1 << 30)
    assert not [data for _, data in events if SECRET.encode() in data]
    assert SECRET.encode() not in run.summary
    assert (await house.step(1)).name == "GET /?key=[redacted]"


@pytest.mark.parametrize("capture", ["off", "metadata_only", "redacted", "full"])
async def test_the_traceback_of_an_exception_is_kept_once_and_as_content_is(
    store: Store, capture: CaptureMode
) -> None:
    stacktrace = f"Traceback (most recent call last):\n  connect({SECRET!r})\nOSError: no"
    told = {"exception.type": "OSError", "exception.message": "no", "exception.stacktrace": stacktrace}
    house = await open_house(store, capture=capture)
    await house.record(
        span(1, status=2, events=[SpanEvent(BEGAN_NS, "exception", told)]),
        span(2, 1, status=2, attributes=told),
    )
    for step in (await house.step(1), await house.step(2)):
        expected = stacktrace.replace(SECRET, "[redacted]") if capture == "redacted" else stacktrace
        kept = (step.error_context or {}).get("traceback")
        assert kept == (expected if capture in ("redacted", "full") else None)
        assert "stacktrace" not in str((step.events, step.attributes))


async def test_a_run_ends_when_all_has_ended_and_nothing_came(house: House) -> None:
    await house.record(span(2, 1))
    await house.time_passes(SETTLE_S / 2)
    await house.record(span(1, name="plan"))
    await house.time_passes(SETTLE_S * 0.75)
    assert (await house.run()).status == "running"
    await house.time_passes(SETTLE_S * 0.75)
    assert (await house.run()).status == "completed"
    await house.time_passes(IDLE_S * 2)
    assert [event.event_type for event in await house.events()].count("flow_completed") == 1


async def test_a_list_shows_what_was_asked_last_and_the_answer(house: House) -> None:
    asked = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system_instructions": '[{"type": "text", "content": "Be brief."}]',
        "gen_ai.input.messages": msgspec.json.encode(
            [*asked, {"role": "user", "content": "and now?"}]
        ).decode(),
        "gen_ai.output.messages": '[{"role": "assistant", "content": "rain"}]',
    }
    await house.record(span(1, attributes=attributes))
    await house.time_passes(SETTLE_S * 2)
    run = await house.run()
    summary = msgspec.json.decode(run.summary, type=RunSummary)
    assert (summary.input_preview, summary.result_preview) == ("and now?", "rain")


async def test_a_run_with_an_open_span_is_lost_when_its_sender_is_silent(house: House) -> None:
    # In whatever order they come, it is the one that began first.
    await house.record(span(3, 1, name="later", end_ns=0), span(1), span(2, 1, name="tool", end_ns=0))
    await house.time_passes(IDLE_S - 1)
    assert (await house.run()).status == "running"
    await house.time_passes(2)
    *_, last = await house.events()
    assert isinstance(last, FlowFailed)
    assert (last.step_id, (last.error or {})["code"]) == ("tool", WRITER_LOST)
    assert (await house.step(2)).status == "failed"
    assert (await house.step(1)).status == "completed"


async def test_the_error_of_the_top_span_is_that_of_the_run(house: House) -> None:
    await house.record(span(1, name="top", status=2, status_message="no way"), span(2, 1))
    await house.time_passes(SETTLE_S + 1)
    run = (await house.trace()).flow_run
    error = there(run.error)
    assert (run.status, error.step_id, "no way" in (error.message or "")) == ("failed", "top", True)


async def test_a_run_does_not_end_before_the_request_that_has_more_of_it_is_stored(house: House) -> None:
    async def slowly() -> AsyncIterator[Piece]:
        async for piece in in_pieces([span(1)], [span(2, 1)]):
            yield piece
            await house.time_passes(SETTLE_S + 1)

    await house.recordings.record(house.project, slowly())
    assert await steps_of_parts(house) == [[f"{number:016x}" for number in (1, 2)]]
    await house.time_passes(SETTLE_S + 1)
    assert (await house.run()).status == "completed"


async def test_what_comes_later_is_another_run_and_a_late_repeat_is_none(house: House, store: Store) -> None:
    await house.record(span(1), span(2, 1))
    await house.time_passes(SETTLE_S + 1)
    first = await house.run()
    await house.record(span(2, 1))
    assert await house.run() == first
    await house.record(span(2, 1), span(3, 1))
    second = await house.run()
    assert (second.id != first.id, await house.continues()) == (True, first.id)
    assert [step.span_id for step in (await house.trace()).steps] == [f"{3:016x}"]
    restarted = await open_house(store, clock=house.clock)
    await restarted.record(span(1), span(2, 1))
    await house.record(span(1), span(2, 1))
    assert (await house.run()).head == second.head
    await house.time_passes(SETTLE_S + 1)
    await house.record(span(4, 1, attributes={"gen_ai.operation.name": None}))
    third = await house.run()
    assert (third.id != second.id, third.trigger_type) == (True, "recorded")


async def steps_of_parts(house: House) -> list[list[str]]:
    """The ids of the spans of each run of the trace, those of the first one first."""
    newest = await house.run()
    runs = [*await house.store.earlier_parts(newest.no), newest]
    return [
        [
            msgspec.json.decode(row.data, type=StepTrace).span_id or ""
            for row in await house.store.steps(run.no)
        ]
        for run in runs
    ]


async def test_a_repeat_is_stored_once_in_a_trace_of_any_number_of_runs(house: House, store: Store) -> None:
    for number in range(1, 5):
        await house.record(span(number))
        await house.time_passes(SETTLE_S + 1)
    expected = [[f"{number:016x}"] for number in range(1, 5)]
    await house.record(span(2))
    assert await steps_of_parts(house) == expected
    for again in range(2):
        # The request that makes the next run, and its repeat, once that goes on.
        await house.record(span(2), span(3), span(5))
        assert await steps_of_parts(house) == [*expected, [f"{5:016x}"]], again
    restarted = await open_house(store, clock=house.clock)
    await restarted.record(span(1), span(4), span(5), span(6))
    assert await steps_of_parts(house) == [*expected, [f"{5:016x}", f"{6:016x}"]]


@pytest.mark.parametrize("has_ended", [True, False])
async def test_a_deleted_trace_stays_deleted(house: House, has_ended: bool) -> None:
    await house.record(span(1), span(1, trace_id=OTHER))
    if has_ended:
        await house.time_passes(SETTLE_S + 1)
    await house.store.purge_runs([(await house.run()).no])
    for _ in range(2):
        assert await house.record(span(1), span(2), span(1, trace_id=OTHER)) == [Refused(DELETED, 2)]
    assert len((await house.trace(OTHER)).steps) == 1


async def test_two_processes_on_one_trace_lose_nothing(store: Store) -> None:
    one = await open_house(store, is_alone=False)
    other = await open_house(store, clock=one.clock, is_alone=False)
    spans = [span(number, 1 if number > 1 else None) for number in range(1, 61)]
    await asyncio.gather(
        *((one, other)[number % 2].record(*spans[number * 5 : number * 5 + 6]) for number in range(12))
    )
    recorded = [event for event in await one.events() if isinstance(event, StepRecorded)]
    assert sorted(event.span.span_id for event in recorded) == [f"{n:016x}" for n in range(1, 61)]
    assert len({(event.step_id, event.loop_path) for event in recorded}) == 60


@pytest.mark.parametrize("commits", [False, True])
async def test_what_failed_is_not_acknowledged_and_its_repeat_is_stored_once(
    house: House, commits: bool
) -> None:
    await house.record(span(1))
    with FaultyStore(house.store) as faulty:
        faulty.fail("append", StoreError("the disk is away"), times=1, commits=commits)
        with pytest.raises(StoreError):
            await house.record(span(2, 1), span(3, 1))
    await house.record(span(2, 1), span(3, 1))
    assert len((await house.trace()).steps) == 3
    assert (await house.run()).head == 4


async def test_a_trace_without_ai_is_plain_until_a_span_of_ai_comes(house: House) -> None:
    await house.record(span(1, attributes={"gen_ai.operation.name": None, "http.route": "/"}, scope="http"))
    assert (await house.run()).trigger_type == "plain"
    await house.record(span(2, 1))
    assert (await house.run()).trigger_type == "recorded"


async def test_a_span_that_comes_as_its_run_ends_is_in_one_of_two_runs(house: House) -> None:
    await house.record(span(1))
    await house.clock.sleep(SETTLE_S + 1)
    await asyncio.gather(house.settling.settle(), house.record(span(2, 1)))
    await house.time_passes(SETTLE_S + 1)
    parts = await steps_of_parts(house)
    assert [span_id for part in parts for span_id in part] == [f"{1:016x}", f"{2:016x}"]
    newest = await house.run()
    runs = [*await house.store.earlier_parts(newest.no), newest]
    assert {run.status for run in runs} == {"completed"}


async def test_a_run_is_lost_once_nothing_is_heard_of_the_sender_of_its_open_spans_for_a_lease(
    house: House,
) -> None:
    """Neither while it is heard of, nor for the time in which nobody could have heard."""

    def leased(span_id: int, parent: int | None = None, **fields: Any) -> ReceivedSpan:
        return span(span_id, parent, attributes={"runglass.lease_s": 30}, **fields)

    await house.record(leased(1, end_ns=0), leased(2, 1))
    for _ in range(20):
        await house.time_passes(29)
        await house.record(leased(1, end_ns=0))
    assert (await house.run()).status == "running"
    head = (await house.run()).head
    await house.clock.sleep(300)
    restarted = await open_house(house.store, clock=house.clock)
    await restarted.time_passes(29)
    assert (await restarted.run()).status == "running"
    await restarted.record(leased(1, end_ns=0))
    await restarted.time_passes(29)
    assert (await restarted.run()).head == head
    await restarted.time_passes(2)
    *_, last = await restarted.events()
    assert isinstance(last, FlowFailed)
    assert (last.error or {})["code"] == WRITER_LOST
    # When it was last heard of, as far as that is known, and not when it was given up.
    heard = restarted.clock.now() - timedelta(seconds=31)
    ended = datetime.fromisoformat((await restarted.step(1)).completed_at or "")
    assert timedelta(0) <= ended - heard <= timedelta(seconds=1)
    await restarted.record(leased(1, end_ns=0))
    assert (await restarted.run()).status == "failed"


def last(span_id: int, settle_s: int = 5, **fields: Any) -> ReceivedSpan:
    """A span after which its sender expects nothing."""
    return span(span_id, attributes={"runglass.settle_s": settle_s}, **fields)


async def test_a_run_ends_soon_after_the_span_behind_which_its_sender_expects_nothing(house: House) -> None:
    await house.record(span(1, end_ns=0, attributes={"runglass.lease_s": 30}))
    await house.time_passes(29)
    # One that was known before, and one that comes as a whole.
    await house.record(span(2, 1), last(1), span(2, 1, trace_id=OTHER), last(1, trace_id=OTHER))
    await house.time_passes(4)
    await house.record(span(3, 1))
    await house.time_passes(1)
    assert ((await house.run()).status, (await house.run(OTHER)).status) == ("running", "completed")
    await house.time_passes(4)
    assert (await house.run()).status == "completed"
    first = await house.run()
    await house.record(span(4, 1))
    assert await house.continues() == first.id


@pytest.mark.parametrize(
    "spans",
    [[last(1), span(2)], [last(1), span(3, 2)], [last(1), span(2, 1, end_ns=0)], [last(1, settle_s=3600)]],
)
async def test_more_is_waited_for_where_a_sender_may_expect_it(
    house: House, spans: list[ReceivedSpan]
) -> None:
    """Another top, a parent that is missing, an open span; and a sender puts no end off."""
    await house.record(*spans)
    await house.time_passes(SETTLE_S - 1)
    assert (await house.run()).status == "running"
    await house.record(*(each._replace(end_ns=BEGAN_NS + 10**10) for each in spans))
    await house.time_passes(SETTLE_S + 1)
    assert (await house.run()).status == "completed"


async def test_notes_of_a_sender_are_short_and_have_no_secrets(house: House) -> None:
    notes = [f"with {SECRET}", "z" * 100_000]
    await house.record(span(1, attributes={"runglass.notes": notes}))
    assert (await house.step(1)).notes == ("a note of 100,000 characters was left out", "with [redacted]")


@pytest.mark.parametrize("lease_s", [10**9, 10**12, 2**63 - 1])
async def test_a_lease_beyond_all_bounds_is_one_of_a_day(house: House, lease_s: int) -> None:
    """A sender must not keep the runs of others from their end."""
    leased = span(2, 1, end_ns=0, attributes={"runglass.lease_s": lease_s})
    await house.record(span(1), span(1, trace_id=OTHER), leased)
    await house.record(leased)
    await house.time_passes(86_401)
    assert [(await house.run(each)).status for each in (TRACE, OTHER)] == ["failed", "completed"]


async def test_a_long_lease_puts_the_end_of_a_run_off_only_as_long_as_a_span_is_open(house: House) -> None:
    attributes = {"runglass.lease_s": 3600}
    for _ in range(2):
        await house.record(span(1, end_ns=0, attributes=attributes))
    await house.record(span(1))
    await house.time_passes(SETTLE_S + 1)
    assert (await house.run()).status == "completed"


async def test_a_sender_that_is_heard_of_while_its_run_is_looked_at_is_not_lost(house: House) -> None:
    leased = span(1, end_ns=0, attributes={"runglass.lease_s": 30})
    await house.record(leased)
    with FaultyStore(house.store) as faulty:
        faulty.after("due_recordings", lambda _: house.record(leased))
        await house.time_passes(60)
    assert (await house.run()).status == "running"


async def test_an_open_span_without_a_lease_is_waited_for(house: House) -> None:
    attributes = {"runglass.lease_s": 30}
    await house.record(span(1, end_ns=0), span(2, 1, end_ns=0, attributes=attributes))
    await house.time_passes(IDLE_S - 1)
    assert (await house.run()).status == "running"


async def test_a_run_of_which_no_span_was_stored_is_lost_unless_its_sender_comes_again(house: House) -> None:
    with FaultyStore(house.store) as faulty:
        faulty.fail("append", StoreError("the disk is away"))
        with pytest.raises(StoreError):
            await house.record(span(1), span(1, trace_id=OTHER))
    await house.record(span(1, trace_id=OTHER))
    await house.time_passes(IDLE_S * 2)
    lost = await house.trace()
    assert (there(lost.flow_run.error).code, lost.steps) == (WRITER_LOST, [])
    assert (await house.run(OTHER)).status == "completed"


async def test_a_damaged_run_costs_no_other(store: Store) -> None:
    house = await open_house(store)
    await house.record(span(1), span(1, trace_id=OTHER))
    # It is found as what is known of a span is read, or where the run is not in memory.
    restarted = await open_house(store, clock=house.clock)
    for number, each, sent in ((2, house, span(1, name="again")), (3, restarted, span(2))):
        with FaultyStore(store) as faulty:
            faulty.answer("events", [(2, b"{")], times=1)
            refused = await each.record(sent, span(number, trace_id=OTHER))
            assert refused == [Refused(UNREADABLE, 1)]
    assert len((await restarted.trace(OTHER)).steps) == 3
