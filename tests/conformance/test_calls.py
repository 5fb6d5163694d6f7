"""What every store must keep for callers: the key of a call, its answer, and what the run owes."""

import pytest

from runglass.errors import DuplicateIdempotencyKey
from runglass.store.base import Store
from runglass.store.records import IdempotencyKey, IdempotencyRecord
from tests.conformance.stores import CALL, batch, make_run
from tests.conformance.test_run_queue import NEXT_SEGMENT, paused_run
from tests.records import there


async def test_the_outcome_of_a_run_is_kept_for_its_caller(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1"))
    assert await store.outcome(run.no) == (None, None)
    await store.append(batch(run, 1, b"2", status="completed", result=b'{"a":1}'))
    assert await store.outcome(run.no) == (b'{"a":1}', None)
    failed = await make_run(store, "run-2")
    await store.append(batch(failed, 0, b"1", status="failed", error=b'{"code":"X"}'))
    assert await store.outcome(failed.no) == (None, b'{"code":"X"}')


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


async def test_owed_content_is_kept_as_long_as_its_call(store: Store) -> None:
    run = await make_run(store)
    await store.append(batch(run, 0, b"1", b"2", status="paused", owed=[(2, b"{}")]))
    assert (await store.owed(run.no, 1), await store.owed(run.no, 2)) == (None, b"{}")
    paused = there(await store.run(run.id))
    await store.resume_run(paused, NEXT_SEGMENT, owner=None, call=CALL)
    begun = there(await store.call(run.project_id, "key"))
    assert begun.head == 2
    await store.forget_calls(before="2000")
    assert await store.owed(run.no, 2) == b"{}"
    await store.forget_calls(before="9999")
    assert await store.owed(run.no, 2) is None


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
