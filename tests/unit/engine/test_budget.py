"""Reserved before it is spent: no crash and no silent provider passes a budget."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from msgspec.structs import replace

from runglass.config.settings import Price
from runglass.engine.journal.run_writer import RunWriter
from runglass.engine.models.budget import LOOK_S, BudgetExceeded, Budgets
from runglass.engine.models.gateway import ModelCallFailed, ModelRequest
from runglass.flows.parser import parse_flow
from runglass.log.events import StepModelReserved
from runglass.store.leases import BudgetDecision
from runglass.store.records import Project
from runglass.store.sqlite.store import SqliteStore
from tests.conformance.stores import make_run
from tests.fakes import VirtualClock, in_virtual_time, let_time_pass
from tests.faulty_store import FaultyStore
from tests.records import run_record
from tests.unit.engine.bench import EngineBench, engine_bench_with, open_engine_bench
from tests.unit.engine.conftest import EngineHarness, next_life, open_harness, take_over_in_vain
from tests.unit.engine.fake_models import ANSWER, FakeModels
from tests.unit.engine.fake_provider import COMPATIBLE, Reply, error_reply
from tests.unit.engine.test_unreadable import UPDATES, spoil

ASK = "- {id: ask, type: llm, model: 'local:tiny', prompt: Hello}"
PRICE = Price(input_per_mtok=Decimal(1), output_per_mtok=Decimal(1000))
DECLINED = f"{ASK[:-1]}, output_schema: {{type: object}}, settings: {{stream: false}}}}"


async def spent_and_reserved(house: EngineHarness) -> tuple[Any, Any]:
    project = await house.project()
    return project.spent_usd, project.reserved_usd


PRICED = {"prices": {"local:tiny": PRICE}, "default_max_tokens": 100}
bench = engine_bench_with(**PRICED)


async def test_a_call_that_does_not_fit_is_not_made(tmp_path: Path) -> None:
    models = FakeModels()
    async with open_harness(tmp_path / "db", models=models) as house:
        await house.set_budget(Decimal("0.5"))
        ran = await house.run_to_end(ASK)
        assert models.calls == 0
        assert ran.error["code"] == "CREDITS_EXHAUSTED"
        message = ran.error["message"]
        assert all(part in message for part in ("'ask'", "up to $1", "$0.5", "max_tokens", "projects budget"))
        assert ran.steps() == [("ask", None, 1, "failed")]
        assert await spent_and_reserved(house) == (0, 0)


async def die_asking(path: Path, budget_usd: int | None) -> str:
    """The id of a run whose process has died while a model was asked, with a budget or none."""
    models = FakeModels()
    async with open_harness(path, models=models) as house:
        await house.set_budget(budget_usd)
        started = await house.start(ASK)
        await models.asked.wait()
        FaultyStore(house.store).die()
    return started.id


GARBAGE = b"\xff{garbage"
ODD_STEP = (
    b'{"stepId":"ask","attempt":1,"status":"running","tokens":{"prompt":1.5,"completion":0,"total":1.5},'
    b'"reservation":{"number":1,"model":"echo","usd":"1"}}'
)


@pytest.mark.parametrize(
    "rows",
    [{"step": GARBAGE}, {"summary": GARBAGE}, {"step": ODD_STEP, "event": GARBAGE}],
    ids=["the step", "the summary", "all but what was reserved"],
)
async def test_what_a_run_that_cannot_be_read_has_reserved_is_charged_when_it_is_cancelled(
    tmp_path: Path, rows: dict[str, bytes]
) -> None:
    run_id = await die_asking(tmp_path / "db", 3)
    for what, data in rows.items():
        spoil(tmp_path / "db", UPDATES[what], data, run_id)
    async with next_life(tmp_path / "db") as house:
        run = await house.run_of(run_id)
        assert (len(house.engine.active.set_aside), await spent_and_reserved(house)) == (1, (0, 1))
        assert await house.engine.idle.cancel(run, reason="asked for")
        assert await spent_and_reserved(house) == (1, 0)


@pytest.mark.parametrize(
    ("end", "budget_usd"),
    [("completed", 3), ("cancelled", 3), ("failed", 3), ("cancelled", None), ("failed", None)],
)
async def test_a_call_that_a_crash_cut_off_is_told_as_lost_and_charged_as_it_was_reserved(
    tmp_path: Path, end: str, budget_usd: int | None
) -> None:
    """The run goes on and asks again, is cancelled, or has taken too many processes down."""
    run_id = await die_asking(tmp_path / "db", budget_usd)
    reserved_usd = Decimal(1 if budget_usd else 0)
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        project = await store.ensure_project("acme", "demo")
        assert (project.spent_usd, project.reserved_usd) == (Decimal(0), reserved_usd)
        if end == "cancelled":
            await store.request_cancel(run_id, reason="asked for")
    if end == "failed":
        await take_over_in_vain(tmp_path / "db")
    async with next_life(tmp_path / "db", models=FakeModels(ANSWER)) as house:
        ran = await house.read_at_end(run_id)
        spent_usd, held_usd = await spent_and_reserved(house)
    lost, *answered = ran.calls
    assert (ran.trace.flow_run.status, len(answered)) == (end, end == "completed")
    assert (lost.error_code, lost.cost_unknown) == ("WORKER_LOST", "no_usage")
    assert lost.cost_estimated == (budget_usd is not None)
    assert (spent_usd, held_usd) == (reserved_usd + len(answered), 0)
    assert (ran.totals.unmetered_calls, ran.totals.by_model["local:tiny"].calls) == (1, len(ran.calls))
    assert ran.attempts["ask"][-1].reservation is None


async def test_a_request_that_was_never_sent_is_no_call_and_costs_nothing(tmp_path: Path) -> None:
    models = FakeModels()
    unsent = ModelCallFailed("INVALID_INPUT", "could not be asked", may_be_charged=True, may_retry=False)
    FaultyStore(models).fail("complete", unsent)
    async with open_harness(tmp_path / "db", models=models) as house:
        await house.set_budget(3)
        found = await house.run_to_end(ASK)
        assert await spent_and_reserved(house) == (0, 0)
    assert (found.error["code"], found.calls) == ("INVALID_INPUT", [])


@pytest.mark.parametrize("cut_off", ["while it is reserved", "before it is made"])
async def test_a_request_that_was_reserved_and_not_made_costs_nothing(tmp_path: Path, cut_off: str) -> None:
    store, models = SqliteStore(tmp_path / "db", synchronous="NORMAL"), FakeModels()
    never_ready = FaultyStore(models).hold("ready")
    is_reserved = cut_off == "before it is made"
    held = FaultyStore(store).hold("append", when=lambda batch: batch.reserved_usd > 0)
    if is_reserved:
        held.let_go()
    async with open_harness(store, models=models) as house:
        await house.set_budget(3)
        started = await house.start(ASK)
        await (never_ready if is_reserved else held).reached()
        house.engine.active.cancel(started.id, reason="asked for")
        if not is_reserved:
            await asyncio.sleep(0)
            held.let_go()
        ran = await house.read_at_end(started.id)
        assert (await spent_and_reserved(house), models.calls) == ((0, 0), 0)
    (call,) = ran.calls
    assert (call.note, call.error_code) == ("aborted before it was made", "CANCELLED")
    assert ran.trace.flow_run.status == "cancelled"
    assert ran.step("ask").reservation is None


@pytest.mark.parametrize(
    ("status", "charged", "has_budget"), [(400, 0, True), (500, 1, True), (400, 0, False)]
)
async def test_a_crash_after_a_declined_request_tells_and_charges_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, charged: int, has_budget: bool
) -> None:
    declined, silent = error_reply(status, "response_format is not known here"), Reply(body=b"", silent=True)
    async with open_engine_bench(tmp_path, monkeypatch, **PRICED) as bench, asyncio.timeout(60):
        if has_budget:
            await bench.house.set_budget(20)
        bench.fake.replies.extend([declined, silent])
        started = await bench.house.start(DECLINED)
        # The end of the first request, and on a budget the second reservation, for the second request.
        await bench.house.follow(started.id, until=6 if has_budget else 5)
        spent_usd, reserved_usd = await spent_and_reserved(bench.house)
        FaultyStore(bench.house.store).die()
    assert spent_usd == reserved_usd * charged, "the second is held"
    async with next_life(tmp_path / "db") as house:
        ran = await house.read_at_end(started.id)
        assert await spent_and_reserved(house) == (reserved_usd * (1 + charged), 0)
    assert [(call.number, call.error_code == "WORKER_LOST") for call in ran.calls] == [(1, False), (2, True)]


@pytest.mark.parametrize(
    "settings",
    [
        {"extra_body": {"n": 100}},
        *({"max_tokens": limit} for limit in (-1_000_000_000, 0, 1.5, 2.0, True, None, "9")),
    ],
    ids=str,
)
async def test_a_setting_that_changes_model_bill_or_address_or_is_no_limit_sends_nothing(
    bench: EngineBench, settings: dict[str, Any]
) -> None:
    """A reservation below nothing would be room for others, as long as it is held.

    A file with such a limit is refused; a flow that was stored before it was is not.
    """
    await bench.house.set_budget(10)
    flow = parse_flow(f"slug: test\nsteps:\n{ASK}")
    ran = await bench.run(replace(flow, steps=[replace(flow.steps[0], settings=settings)]))
    assert bench.fake.requests == []
    if "max_tokens" in settings:
        assert not any(isinstance(event, StepModelReserved) for event in ran.events)
    assert ran.error["code"] == "INVALID_INPUT"
    assert next(iter(settings)) in ran.error["message"]
    assert await spent_and_reserved(bench.house) == (0, 0)


async def test_a_budget_that_is_set_while_a_run_goes_on_holds_for_it(tmp_path: Path) -> None:
    """The first step sees it come about, a while after it has begun."""
    models = FakeModels(ANSWER)
    async with open_harness(tmp_path / "db", models=models) as house:

        async def set_late(request: ModelRequest) -> None:
            await house.set_budget(Decimal("0.5"))
            await house.clock.sleep(LOOK_S)

        FaultyStore(models).before("answer", set_late)
        ran = await house.run_to_end(f"{ASK}\n{ASK.replace('ask', 'again')}")
        assert models.calls == 1
        assert ran.error["code"] == "CREDITS_EXHAUSTED"


async def test_a_model_without_a_price_is_not_asked_on_a_budget(bench: EngineBench) -> None:
    await bench.house.set_budget(10)
    ran = await bench.run(ASK.replace("tiny", "unknown"))
    assert bench.fake.requests == []
    assert ran.error["code"] == "MODEL_NOT_SUPPORTED"
    assert "`prices`" in ran.error["message"]
    echo = await bench.run("- {id: e, type: llm, model: echo, prompt: Hi}")
    assert echo.outcome.status == "completed"
    assert echo.calls[0].cost_usd is None, "free, and no cost made up"


@pytest.mark.parametrize(("status", "budget"), [(400, 0.15), (500, 1), (500, 0.15)])
async def test_each_request_is_reserved_and_one_that_was_free_makes_room_for_the_next(
    bench: EngineBench, status: int, budget: float
) -> None:
    """A refusal with 4xx is free; after a 500 nobody knows, and the next request needs money of its own.

    Of what went well nothing is kept, under `metadata_only`, nor of what it took.
    """
    declined = error_reply(status, "response_format is not known here")
    answer = COMPATIBLE.reply('{"a": 1}', streamed=False)
    await bench.house.set_budget(Decimal(str(budget)))
    ran = await bench.run(DECLINED, declined, answer, capture="metadata_only")
    reserved = [event.reservation for event in ran.events if isinstance(event, StepModelReserved)]
    assert Decimal("0.1") < Decimal(reserved[0].usd) < Decimal("0.11"), "100 tokens and a few bytes"
    assert {request["max_tokens"] for request in bench.fake.requests} == {100}
    assert [call.number for call in ran.calls] == [*range(1, len(reserved) + 1)]
    assert await spent_and_reserved(bench.house) == (
        sum(Decimal(call.cost_usd or 0) for call in ran.calls),
        0,
    )
    refused, *answered = ran.calls
    assert refused.error_code is not None
    assert (refused.cost_usd, refused.cost_estimated) == (
        (reserved[0].usd, True) if status == 500 else (None, False)
    )
    if (status, budget) == (500, 0.15):
        assert (ran.error["code"], answered) == ("CREDITS_EXHAUSTED", [])
    else:
        assert refused.note == "the server declined this request, and was asked again in another form"
        assert [(call.cost_usd, call.cost_estimated) for call in answered] == [("0.002005", False)]
        assert "Hello" not in repr(ran.events)


async def test_runs_that_begin_at_once_share_a_reading_of_their_project_that_begins_after_they_asked(
    tmp_path: Path,
) -> None:
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        project_id = (await make_run(store)).project_id
        # Nothing is written.
        writer = cast(RunWriter, None)
        budgets, faults = Budgets(store, VirtualClock()), FaultyStore(store)
        reads, held = faults.calls("project"), faults.hold("project", answered=True)
        early = asyncio.create_task(budgets.of_run(project_id, writer))
        await held.reached()
        await store.set_budget(project_id, Decimal(1))
        late = [asyncio.create_task(budgets.of_run(project_id, writer)) for _ in range(20)]
        await asyncio.sleep(0)
        late[0].cancel()
        held.let_go()
        assert await early is not None
        found = await asyncio.gather(*late[1:])
        assert len(reads) == 2
        assert [budget is not None and await budget.is_set() for budget in found] == [True] * 19


async def test_a_step_that_is_cut_off_while_the_store_decides_holds_nothing(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "db", synchronous="NORMAL") as store:
        await make_run(store)
        await store.hold_lease("me", until="2999-01-01", renew=False)
        [run] = await store.claim_runs("me", now="2026-01-01", limit=1)
        await store.set_budget(run.project_id, Decimal(1))

        async def reserve() -> None:
            async with Budgets(store, VirtualClock()).reserved(run, Decimal(1)):
                raise AssertionError("the store has not answered")

        with FaultyStore(store) as faults:
            held = faults.hold("hold_budget", answered=True)
            reserving = asyncio.create_task(reserve())
            await held.reached()
            reserving.cancel()
            await asyncio.wait({reserving})
            assert reserving.cancelled()
        assert (await store.hold_budget(uuid4(), run, Decimal(1))).held_usd == 0


@in_virtual_time
async def test_what_this_process_is_storing_is_waited_for_and_what_another_one_holds_for_a_moment() -> None:
    run = run_record(head=1)
    project = Project(id=1, org="acme", name="demo", budget_usd=Decimal(2))
    with_room, without = (BudgetDecision(project, Decimal(held)) for held in (0, 2))
    store = SqliteStore(Path("never-opened"), synchronous="NORMAL")
    budgets, faults, stored = Budgets(store, VirtualClock()), FaultyStore(store), asyncio.Event()
    faults.answer("release_budget", None)

    async def reserve() -> None:
        async with budgets.reserved(run, Decimal(1)):
            await stored.wait()

    faults.answer("hold_budget", with_room)
    storing = asyncio.create_task(reserve())
    await let_time_pass()
    faults.answer("hold_budget", without)
    waiting = asyncio.create_task(reserve())
    await let_time_pass(3600)
    assert not waiting.done()
    faults.answer("hold_budget", with_room)
    stored.set()
    await asyncio.gather(storing, waiting)
    faults.answer("hold_budget", without)
    with pytest.raises(BudgetExceeded):
        await reserve()
