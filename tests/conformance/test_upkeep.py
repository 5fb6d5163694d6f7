"""What every store must keep, and how long: keys of calls, answers, what a run owes, outlines."""

import asyncio
import logging
from unittest.mock import Mock

import pytest

from runglass.errors import DuplicateIdempotencyKey, RunglassError, RunPurged, RunUnreadable, StoreError
from runglass.server.services.outlines import INTERVAL_S, Outlines, keep_outlines
from runglass.store.base import Store
from runglass.store.records import LARGE_RUN_EVENTS, IdempotencyKey, IdempotencyRecord, RunRecord
from tests.conformance.stores import CALL, batch, make_run, purge_all, run_with
from tests.conformance.test_imports import import_run
from tests.conformance.test_removal import ended_run
from tests.conformance.test_run_queue import NEXT_SEGMENT, paused_run
from tests.fakes import VirtualClock
from tests.faulty_store import FaultyStore
from tests.records import there


async def test_a_task_of_maintenance_is_kept_by_whoever_claims_it_again(store: Store) -> None:
    for _ in range(2):
        assert await store.claim_maintenance("removal", for_s=60)
        assert await store.claim_maintenance("another", for_s=60)


async def test_what_a_caller_is_owed_expires_with_the_runs_end_and_the_call_stays_known(store: Store) -> None:
    run = await make_run(store, call=CALL)
    await store.answer_call(run.project_id, "key", status=202, answer=b"{}")
    await store.append(batch(run, 0, b"1", owed=[(1, b"{}")]))
    assert await store.expire_answers(before="9999", limit=10) == 0, "the run goes on"
    await store.append(batch(run, 1, b"2", status="completed", result=b'{"a":1}'))
    assert await store.expire_answers(before="2000", limit=10) == 0, "nothing is as old as that"
    assert await store.outcome(run.no) == (b'{"a":1}', None)
    assert await store.expire_answers(before="9999", limit=10) == 2
    assert await store.expire_answers(before="9999", limit=10) == 0
    assert await store.outcome(run.no) == (None, None)
    assert await store.owed(run.no, 1) is None
    call = await store.call(run.project_id, "key")
    assert call == IdempotencyRecord(key="key", digest=b"digest", run_id=run.id, status=202)


async def test_what_a_run_that_waits_owes_outlives_an_answer_and_goes_with_its_call(
    store: Store,
) -> None:
    run = await make_run(store, call=CALL)
    await store.append(batch(run, 0, b"1", b"2", status="paused", owed=[(2, b"{}")]))
    await store.answer_call(run.project_id, "key", status=200, answer=b"{}")
    assert await store.expire_answers(before="9999", limit=10) == 1
    call = there(await store.call(run.project_id, "key"))
    assert (call.status, call.answer) == (200, None)
    assert (await store.owed(run.no, 1), await store.owed(run.no, 2)) == (None, b"{}")
    paused = there(await store.run(run.id))
    await store.resume_run(paused, NEXT_SEGMENT, owner=None, call=CALL._replace(key="next"))
    assert there(await store.call(run.project_id, "next")).head == 2
    await store.forget_calls(before="2000")
    assert await store.owed(run.no, 2) == b"{}"
    await store.forget_calls(before="9999")
    assert await store.owed(run.no, 2) is None


async def test_answers_expire_a_few_at_a_time_and_the_oldest_first(store: Store) -> None:
    ended = {"status": "completed", "result": b"{}"}
    runs = [await run_with(store, b"1", run_id=f"run-{number}", **ended) for number in range(3)]
    assert await store.expire_answers(before="9999", limit=2) == 2
    assert [await store.outcome(run.no) for run in runs] == [(None, None), (None, None), (b"{}", None)]
    assert await store.expire_answers(before="9999", limit=2) == 1


async def test_owed_content_of_one_run_expires_bit_by_bit(store: Store) -> None:
    owed = [(seq, b"x" * 700_000) for seq in range(1, 6)]
    run = await run_with(store, *[b"1"] * 5, owed=owed)
    await store.append(batch(run, 5, b"2", status="completed", result=b"{}"))
    bites = 0
    while await store.expire_answers(before="9999", limit=10):
        bites += 1
        assert [seq for seq in range(1, 6) if await store.owed(run.no, seq)] == list(range(1 + 2 * bites, 6))
    assert bites == 3
    assert await store.outcome(run.no) == (None, None)


async def test_a_call_under_one_key_makes_one_run(store: Store) -> None:
    run = await make_run(store, "run-2", call=CALL)
    with pytest.raises(DuplicateIdempotencyKey):
        await make_run(store, "run-3", call=CALL)
    assert await store.run("run-3") is None
    assert await store.call(run.project_id, "key") == IdempotencyRecord(
        key="key", digest=b"digest", run_id="run-2"
    )
    await store.answer_call(run.project_id, "key", status=200, answer=b"{}")
    answered = there(await store.call(run.project_id, "key"))
    assert (answered.status, answered.answer) == (200, b"{}")
    assert await store.call(run.project_id + 1, "key") is None, "a key of another project"
    assert await store.forget_calls(before="2000-01-01") == 0
    assert await store.forget_calls(before="9999-01-01") == 1
    assert await store.call(run.project_id, "key") is None


async def test_the_key_of_a_call_that_resumes_a_run_is_stored_with_the_next_segment(store: Store) -> None:
    await make_run(store, call=CALL)
    paused, other = await paused_run(store), await paused_run(store, "other")
    assert await store.resume_run(paused, NEXT_SEGMENT, owner=None, call=CALL) is None, "it has been used"
    assert not there(await store.run(paused.id)).is_resuming
    call = IdempotencyKey("another", b"digest")
    assert await store.resume_run(paused, NEXT_SEGMENT, owner=None, call=call) is not None
    assert await store.resume_run(other, NEXT_SEGMENT, owner=None, call=call) is None
    assert await store.resume_run(paused, NEXT_SEGMENT, owner=None, call=CALL._replace(key="third")) is None
    assert await store.call(paused.project_id, "third") is None
    assert await store.call(paused.project_id, "another") == IdempotencyRecord(
        **call._asdict(), run_id=paused.id, head=paused.head
    )


@pytest.mark.parametrize("forgets", [False, True])
async def test_answers_of_calls_count_as_data_of_the_project(store: Store, *, forgets: bool) -> None:
    async def taken() -> int:
        project = there(await store.project(run.project_id))
        found = there(await store.run(run.id))
        assert project.data_bytes - others == found.log_bytes + found.open_bytes
        return project.data_bytes - others

    others = 0
    await make_run(store, "run-0")
    run = await make_run(store, call=CALL)
    others = len(b'{"inputs":{}}')
    request = await taken()
    await store.answer_call(run.project_id, "key", status=202, answer=b"a" * 500)
    assert await taken() == request + 500
    content = b"c" * 3000
    # As the engine counts: what is owed is part of what it says is open.
    await store.append(batch(run, 0, b"1", owed=[(1, content)], open_bytes=3000))
    assert await taken() == request + 3500
    await store.append(batch(run, 1, b"2", status="completed", result=b"r" * 70))
    assert await taken() == 3570, "the request is gone, the rest is still owed"
    if forgets:
        await store.forget_calls(before="9999")
        assert await taken() == 70, "the result is kept for whoever asks for the run"
    await store.expire_answers(before="9999", limit=1)
    assert await taken() == 0


async def large_run(store: Store, run_id: str) -> RunRecord:
    return await ended_run(store, run_id, events=LARGE_RUN_EVENTS - 1, size=1)


async def due(store: Store) -> str | None:
    found = await store.due_outline()
    return None if found is None else found.id


async def bytes_of(store: Store, run_id: str) -> tuple[int, int]:
    """Those that are counted of the run, and of its project."""
    project = await store.ensure_project("acme", "demo")
    return there(await store.run(run_id)).log_bytes, project.data_bytes


async def test_the_outline_of_a_large_run_is_due_from_its_end_until_all_of_it_is_kept(store: Store) -> None:
    await ended_run(store, "small", events=LARGE_RUN_EVENTS - 2, size=1)
    going = await run_with(store, *[b"e"] * LARGE_RUN_EVENTS, run_id="going")
    assert await due(store) is None
    run = await large_run(store, "large")
    await store.keep_outline(run.no, 1, b"one")
    await store.keep_outline(run.no, 2, b"two")
    assert (await due(store), await store.kept_outline(run.no)) == ("large", [])
    await store.keep_outline(run.no, 0, b"head")
    assert (await due(store), await store.kept_outline(run.no)) == (None, [b"head", b"one", b"two"])
    assert await store.kept_outline(going.no) == []


async def test_the_newest_outline_is_due_first_and_one_that_is_passed_over_no_more(store: Store) -> None:
    project = await store.ensure_project("acme", "demo")
    await import_run(store, project.id, id="imported", head=LARGE_RUN_EVENTS)
    await large_run(store, "older")
    await large_run(store, "newer")
    for run_id in ("newer", "older", "imported"):
        assert await due(store) == run_id
        await store.pass_over_outline(there(await store.run(run_id)).no)
    assert await due(store) is None


async def test_one_that_is_kept_is_due_once_more_where_it_is_to_be_renewed(store: Store) -> None:
    run = await large_run(store, "large")
    await store.keep_outline(run.no, 0, b"head")
    for _ in range(2):
        await store.renew_outline(run.no)
        assert await due(store) == "large"
    await store.keep_outline(run.no, 0, b"newer")
    assert (await due(store), await store.kept_outline(run.no)) == (None, [b"newer"])
    await store.renew_outline(run.no + 1)
    assert await due(store) is None


async def test_a_kept_outline_counts_as_bytes_of_its_run_once_and_goes_with_it(store: Store) -> None:
    run = await large_run(store, "large")
    of_run, of_project = await bytes_of(store, "large")
    for part, data in ((1, b"x" * 500), (1, b"x" * 100), (0, b"x" * 10)):
        await store.keep_outline(run.no, part, data)
    assert await bytes_of(store, "large") == (of_run + 110, of_project + 110)
    assert await store.purge_runs([run.no])
    assert await due(store) is None
    # Whoever makes it meanwhile writes nothing any more.
    await store.keep_outline(run.no, 0, b"head")
    await purge_all(store, limit_rows=100_000)
    assert await store.kept_outline(run.no) == []
    assert (await store.ensure_project("acme", "demo")).data_bytes == 0


async def test_each_outline_that_is_due_is_kept_and_one_that_fails_keeps_none_from_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it fails with. The newest first, each with a rest as long behind it, and of a second at least.

    One that cannot be read is not tried again.
    """
    runs = {name: await large_run(store, name) for name in ("good", "unreadable", "purged", "unstored")}
    clock, takes_s = VirtualClock(), 7.0

    async def keep(run: RunRecord) -> None:
        await clock.sleep(takes_s)
        await store.keep_outline(run.no, 0, b"head")

    faults = FaultyStore(store)
    tried = faults.calls("keep_outline")
    claims = faults.calls("claim_maintenance")
    faults.answer("claim_maintenance", value=False, times=1)
    failures: dict[str, RunglassError] = {
        "unreadable": RunUnreadable("unreadable", "no JSON"),
        "purged": RunPurged("it was deleted"),
        "unstored": StoreError("the disk is full"),
    }
    for name, failure in failures.items():
        faults.fail("keep_outline", failure, when=lambda no, *_, run=runs[name]: no == run.no, times=1)
    last_rest = FaultyStore(clock).hold("sleep", nth=15)
    with caplog.at_level(logging.WARNING):
        keeping = asyncio.create_task(keep_outlines(store, Mock(Outlines, keep=keep), clock))
        await last_rest.reached()
        keeping.cancel()
        await asyncio.wait({keeping})
    names = ("unstored", "unstored", "purged", "purged", "unreadable", "good")
    assert [call.args[0] for call in tried] == [runs[name].no for name in names]
    # First another server has the claim.
    assert clock.slept_s == [INTERVAL_S, *[takes_s] * 12, INTERVAL_S]
    assert {call.args for call in claims} == {("outlines",)}
    kept = {name for name, run in runs.items() if await store.kept_outline(run.no)}
    assert kept == {"good", "purged", "unstored"}
    assert "what is stored of run 'unreadable' cannot be read" in caplog.text
    assert "it was deleted" not in caplog.text
