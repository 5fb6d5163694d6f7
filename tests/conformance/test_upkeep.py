"""What every store must keep for callers, and how long: keys of calls, their answers, what a run owes."""

import pytest

from runglass.errors import DuplicateIdempotencyKey
from runglass.store.base import Store
from runglass.store.records import IdempotencyKey, IdempotencyRecord
from tests.conformance.stores import CALL, batch, make_run
from tests.conformance.test_run_queue import NEXT_SEGMENT, paused_run
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
    runs = [await make_run(store, f"run-{number}") for number in range(3)]
    for run in runs:
        await store.append(batch(run, 0, b"1", status="completed", result=b"{}"))
    assert await store.expire_answers(before="9999", limit=2) == 2
    assert [await store.outcome(run.no) for run in runs] == [(None, None), (None, None), (b"{}", None)]
    assert await store.expire_answers(before="9999", limit=2) == 1


async def test_owed_content_of_one_run_expires_bit_by_bit(store: Store) -> None:
    run = await make_run(store)
    owed = [(seq, b"x" * 700_000) for seq in range(1, 6)]
    await store.append(batch(run, 0, *[b"1"] * 5, owed=owed))
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
