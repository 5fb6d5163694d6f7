"""What every store must do with runs that wait for a process, in turns, and with the leases of processes."""

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from runglass.errors import WrongExpectedVersion
from runglass.store.base import Store
from runglass.store.leases import ProcessFacts
from runglass.store.records import Checkpoint, RunRecord
from tests.conformance.stores import batch, make_run, run_with
from tests.records import there


async def claim(
    store: Store, limit: int = 10, *, owner: str = "me", at: str = "2026-01-01", **most: Any
) -> list[str]:
    """The runs that the owner gets at this time, in the order in which it gets them."""
    return [run.id for run in await store.claim_runs(owner, now=at, limit=limit, **most)]


async def test_runs_without_a_lease_are_claimed_oldest_first(store: Store) -> None:
    statuses = ["pending", "running", "paused", "completed", "failed", "cancelled"]
    for number, status in enumerate(statuses):
        run = await make_run(store, f"run-{number}")
        if status != "pending":
            await store.append(batch(run, 0, b"1", status=status))
    claimed = await store.claim_runs("me", now="2026-01-01", limit=10)
    assert [(run.id, run.claims) for run in claimed] == [("run-0", 0), ("run-1", 1)], (
        "who waited for its turn has not been lost by anybody"
    )
    assert all(run.fence > 1 for run in claimed)
    assert [run.id for run in await store.paused_runs()] == ["run-2"]


async def test_an_owner_is_told_its_runs_with_the_head_of_each(store: Store) -> None:
    going, ended, _ = [await make_run(store, f"run-{number}") for number in range(3)]
    await store.hold_lease("me", until="2027-01-01", renew=False)
    await store.append(batch(going, 0, b"1", b"2", owner="me"))
    await store.append(batch(ended, 0, b"1", owner="me"))
    assert await store.owned_runs("me") == {"run-0": 2, "run-1": 1}
    await store.append(batch(ended, 1, b"2", status="completed"))
    assert await store.owned_runs("me") == {"run-0": 2}
    assert await store.owned_runs("you") == {}


async def test_a_lease_keeps_runs_from_others_until_it_runs_out(store: Store) -> None:
    run = await make_run(store)
    assert await store.hold_lease("one", until="2026-01-01T00:00:10Z", renew=False)
    (mine,) = await store.claim_runs("one", now="2026-01-01T00:00:00Z", limit=10)
    await store.append(batch(mine, 0, b"1", owner="one"))
    assert await store.claim_runs("two", now="2026-01-01T00:00:09Z", limit=10) == []
    assert await store.hold_lease("one", until="2026-01-01T00:00:20Z", renew=True)
    assert await store.claim_runs("two", now="2026-01-01T00:00:19Z", limit=10) == []
    (taken,) = await store.claim_runs("two", now="2026-01-01T00:00:21Z", limit=10)
    assert (taken.id, taken.head) == (run.id, 1)
    assert taken.fence > mine.fence > run.fence
    assert not await store.hold_lease("one", until="2026-01-01T00:00:30Z", renew=True), (
        "it knows that it lost"
    )
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(mine, 1, b"2"))
    await store.append(batch(taken, 1, b"2"))


async def test_a_run_is_free_at_once_when_its_lease_ends_or_is_released(store: Store) -> None:
    await make_run(store, "run-1")
    await make_run(store, "run-2")
    for owner in ("one", "two"):
        assert await store.hold_lease(owner, until="2027-01-01", renew=False)
    assert len(await store.claim_runs("one", now="2026-01-01", limit=10)) == 2
    await store.release_run("run-1", "two")
    assert await store.claim_runs("two", now="2026-01-01", limit=10) == [], "only its owner lets a run go"
    await store.release_run("run-1", "one")
    assert await claim(store, owner="two") == ["run-1"]
    await store.end_lease("one")
    assert await claim(store, owner="two") == ["run-2"]
    await store.end_lease(None)
    assert len(await store.claim_runs("three", now="2026-01-01", limit=1)) == 1, "not more than asked for"


async def test_a_lease_says_whose_it_is_and_how_many_runs_that_has(store: Store) -> None:
    await make_run(store, "run-1")
    worker = ProcessFacts("there", 7, "1.0", executes_runs=True)
    server = ProcessFacts("here", 8, "1.1", executes_runs=False)
    assert await store.hold_lease("one", until="2999-01-01T00:00:00Z", renew=False, process=worker)
    assert await store.hold_lease("two", until="2999-01-01T00:00:00Z", renew=False, process=server)
    await store.claim_runs("one", now="2026-01-01", limit=9)
    assert await store.hold_lease("one", until="2999-01-02T00:00:00Z", renew=True)
    held = {each.owner: each for each in await store.leases()}
    assert [(each.process, each.runs) for each in held.values()] == [(worker, 1), (server, 0)]
    assert held["one"].expires_at > held["two"].expires_at > held["two"].since
    await store.end_lease("one")
    assert [each.owner for each in await store.leases()] == ["two"]


async def test_claims_are_counted_until_the_log_grows(store: Store) -> None:
    run = claimed = await make_run(store)
    for count in (0, 1, 2):
        (claimed,) = await store.claim_runs(f"owner-{count}", now="2026-01-01", limit=1)
        assert claimed.claims == count
    await store.append(batch(claimed, 0, b"1"))
    (claimed,) = await store.claim_runs("owner", now="2026-01-01", limit=1)
    assert (claimed.id, claimed.claims) == (run.id, 1)


async def paused_run(store: Store, run_id: str = "run") -> RunRecord:
    return await run_with(store, b"1", run_id=run_id, status="paused")


NEXT_SEGMENT = Checkpoint("", "stretch", b"next")


async def test_a_stored_segment_makes_a_paused_run_one_that_can_be_claimed(store: Store) -> None:
    assert await store.hold_lease("me", until="2030-01-01", renew=False)
    paused, other = await paused_run(store), await paused_run(store, "other")
    resumed = there(await store.resume_run(paused, NEXT_SEGMENT, owner=None))
    assert (resumed.status, resumed.is_resuming, paused.is_resuming) == ("paused", True, False)
    assert await store.checkpoints(paused.no) == [NEXT_SEGMENT]
    assert (await store.queued_runs(paused.project_id, most=9)).waiting == 1
    (claimed,) = await store.claim_runs("me", now="2026-01-01", limit=10, project_id=paused.project_id)
    assert (claimed.id, claimed.is_resuming, claimed.claims) == (paused.id, True, 0)
    assert (await store.queued_runs(paused.project_id, most=9)).waiting == 0
    with pytest.raises(WrongExpectedVersion):
        await store.append(batch(resumed, 1, b"2"))
    await store.append(batch(claimed, 1, b"2", status="paused"))
    again = there(await store.run(paused.id))
    assert not again.is_resuming, "it waits for another call now"
    assert await store.claim_runs("you", now="2026-01-01", limit=10) == []
    assert await store.resume_run(again, NEXT_SEGMENT, owner=None) is not None
    assert await claim(store) == [again.id]
    assert [run.id for run in await store.paused_runs()] == [paused.id, other.id]


async def test_of_two_that_resume_a_paused_run_one_does_and_if_it_dies_another_claims_it(
    store: Store,
) -> None:
    assert await store.hold_lease("one", until="2027-01-01", renew=False)
    paused = await paused_run(store)
    assert await store.resume_run(paused, NEXT_SEGMENT, owner="one") is not None
    assert await store.resume_run(paused, NEXT_SEGMENT, owner="two") is None
    seen_later = there(await store.run(paused.id))
    assert await store.resume_run(seen_later, NEXT_SEGMENT, owner="two") is None
    assert await store.claim_runs("two", now="2026-01-01", limit=10) == []
    (claimed,) = await store.claim_runs("two", now="2028-01-01", limit=10)
    assert (claimed.is_resuming, claimed.claims) == (True, 1)


async def test_a_run_that_ends_before_its_next_segment_is_not_claimed(store: Store) -> None:
    resumed = there(await store.resume_run(await paused_run(store), NEXT_SEGMENT, owner=None))
    taken = there(await store.claim_waiting(resumed))
    await store.append(batch(taken, 1, b"2", status="cancelled"))
    assert (await store.queued_runs(resumed.project_id, most=9)).waiting == 0
    assert await store.claim_runs("me", now="2026-01-01", limit=10) == []


async def test_a_request_to_cancel_is_told_to_who_has_the_run(store: Store) -> None:
    assert await store.hold_lease("me", until="2030-01-01", renew=False)
    run, other = await make_run(store, "run-1"), await make_run(store, "run-2")
    assert await store.request_cancel(other.id, reason="why") == "", "nobody has it"
    claimed, waited = await store.claim_runs("me", now="2026-01-01", limit=10)
    assert (claimed.cancel_reason, waited.cancel_reason) == (None, "why"), "whoever claims it is told"
    assert await store.cancel_requests("me") == {other.id: "why"}
    assert await store.request_cancel(run.id, reason="because") == "me"
    assert await store.request_cancel(run.id, reason="again") == "me"
    assert await store.cancel_requests("me") == {run.id: "because", other.id: "why"}
    assert await store.cancel_requests("you") == {}
    await store.append(batch(claimed, 0, b"1", status="cancelled"))
    assert await store.cancel_requests("me") == {other.id: "why"}
    assert await store.request_cancel(run.id, reason="too late") is None
    assert await store.request_cancel("nothing", reason="why") is None


async def test_only_one_process_takes_a_run_that_is_paused_or_waits(store: Store) -> None:
    begun, waiting, other = [await make_run(store, f"run-{number}") for number in range(3)]
    await store.append(batch(begun, 0, b"1", status="paused"))
    assert await store.claim_waiting(begun) is None, "it has paused since"
    for run in (there(await store.run(begun.id)), waiting):
        taken = there(await store.claim_waiting(run))
        assert await store.claim_waiting(run) is None
        with pytest.raises(WrongExpectedVersion):
            await store.append(batch(run, run.head, b"last"))
        await store.append(batch(taken, run.head, b"last", status="cancelled"))
    (claimed,) = await store.claim_runs("me", now="2026-01-01", limit=10)
    assert claimed.id == other.id
    assert await store.claim_waiting(claimed) is None, "somebody goes on with it"


async def test_the_runs_of_one_project_are_claimed_past_those_of_another(store: Store) -> None:
    assert await store.hold_lease("me", until="2030-01-01", renew=False)
    runs = [await make_run(store, f"run-{number}") for number in range(3)]
    other = await make_run(store, "run-other", project="other")
    assert await store.queued_runs(other.project_id, most=9) == (4, 1, 2)
    (claimed,) = await store.claim_runs("me", now="2026-01-01", limit=10, project_id=other.project_id)
    assert claimed.id == "run-other"
    await store.append(batch(runs[1], 0, b"1"))
    two = await store.claim_runs("me", now="2026-01-01", limit=2, project_id=runs[0].project_id)
    assert [run.id for run in two] == ["run-0", "run-1"], "oldest first, begun or not"
    assert await store.claim_runs("me", now="2026-01-01", limit=10, project_id=other.project_id) == []


async def test_no_project_gets_more_runs_than_it_may_have_in_all_processes(store: Store) -> None:
    for owner in ("one", "two"):
        assert await store.hold_lease(owner, until="2030-01-01", renew=False)
    for number in range(4):
        await make_run(store, f"many-{number}")
        await make_run(store, f"few-{number}", project="few")

    most: dict[str, Any] = {"most_each": 2}
    first = sorted(await claim(store, 3, owner="one", **most))
    assert first in (["few-0", "many-0", "many-1"], ["few-0", "few-1", "many-0"])
    assert len(await claim(store, owner="two", **most)) == 1
    assert await claim(store, owner="one", **most) == await claim(store, owner="two", **most) == []
    ended = there(await store.run("few-0"))
    await store.append(batch(ended, 0, b"1", status="completed", ended_at="2026"))
    assert await claim(store, owner="one", **most) == ["few-2"]
    later = await claim(store, owner="later", at="2031-01-01", **most)
    assert len(later) == 4, "what others have left off has its place already"


async def test_no_flow_gets_more_runs_than_it_may_have_in_all_processes(store: Store) -> None:
    for owner in ("one", "two"):
        assert await store.hold_lease(owner, until="2030-01-01", renew=False)
    for number in range(4):
        await make_run(store, f"slow-{number}", slug="slow")
        await make_run(store, f"free-{number}", slug="free")

    most: dict[str, Any] = {"most_of_flows": {"acme/demo/slow": 2, "acme/demo/none": 1}}
    assert sorted(await claim(store, 2, owner="one", **most)) == ["free-0", "slow-0"]
    assert sorted(await claim(store, owner="two", **most)) == ["free-1", "free-2", "free-3", "slow-1"]
    assert await claim(store, owner="one", **most) == []
    ended = there(await store.run("slow-0"))
    await store.append(batch(ended, 0, b"1", status="completed", ended_at="2026"))
    assert await claim(store, owner="one", most_each=5, **most) == []
    assert await claim(store, owner="one", most_each=6, **most) == ["slow-2"]


async def test_the_runs_that_wait_are_counted_up_to_a_number(store: Store) -> None:
    assert await store.hold_lease("one", until="2030-01-01", renew=False)
    first = await make_run(store)
    assert await store.queued_runs(first.project_id, most=10) == (1, 1, 1)
    [other, *_] = [await make_run(store, f"other-{number}", project="other") for number in range(3)]
    assert await store.queued_runs(first.project_id, most=10) == (4, 1, 2)
    assert (await store.queued_runs(other.project_id, most=2)).waiting == 2
    await store.set_weights({first.project_id: 2.0})
    await store.claim_runs("one", now="2026-01-01", limit=9)
    assert await store.queued_runs(first.project_id, most=10) == (0, 0, 0)


async def test_a_budget_is_held_once_until_it_is_given_back_or_its_run_is_taken_over(store: Store) -> None:
    assert await store.hold_lease("one", until="2027-01-01", renew=False)
    made = await make_run(store)
    (run,) = await store.claim_runs("one", now="2026-01-01", limit=1)

    async def is_held(hold: UUID, usd: int) -> bool:
        return (await store.hold_budget(hold, run, Decimal(usd))).has_room_for(Decimal(usd))

    assert await is_held(uuid4(), 99), "there is no budget"
    first, second = uuid4(), uuid4()
    await store.append(batch(run, 0, b"1", owner="one"))
    (run,) = await store.claim_runs("other", now="2028-01-01", limit=1)
    await store.set_budget(made.project_id, Decimal(10))
    assert await is_held(first, 6), "who held something before has lost the run"
    assert not await is_held(second, 5)
    assert await is_held(second, 4)
    await store.release_budget(first)
    await store.append(batch(run, 1, b"2", owner="other", spent_usd=Decimal(2), reserved_usd=Decimal(3)))
    assert not await is_held(first, 2)
    assert await is_held(first, 1)
    await store.append(batch(run, 2, b"3", status="completed", ended_at="2026", reserved_usd=Decimal(-3)))
    decision = await store.hold_budget(uuid4(), run, Decimal(8))
    assert decision.held_usd == 0, "a run that has ended holds nothing"
    assert decision.has_room_for(Decimal(8))


async def enqueue(store: Store, project: str, *numbers: int) -> int:
    runs = [await make_run(store, f"{project}-{number}", project=project) for number in numbers]
    return runs[0].project_id


async def test_projects_take_turns_whoever_came_first(store: Store) -> None:
    await enqueue(store, "a", *range(6))
    await enqueue(store, "b", *range(2))
    assert await claim(store, 5) == ["a-0", "b-0", "a-1", "b-1", "a-2"]
    await enqueue(store, "c", 0)
    assert "c-0" in await claim(store, 2), "who comes anew does not wait behind the line of another"


async def test_a_project_of_more_weight_has_more_turns(store: Store) -> None:
    heavy = await enqueue(store, "heavy", 0)
    await store.set_weights({heavy: 3.0})
    await enqueue(store, "heavy", *range(1, 9))
    await enqueue(store, "light", *range(4))
    first = await claim(store, 8)
    assert sum(run_id.startswith("heavy") for run_id in first) in (6, 7)


async def test_who_was_alone_has_no_debt_and_who_was_away_no_credit(store: Store) -> None:
    for number in range(8):
        await enqueue(store, "busy", number)
        assert await claim(store, 1) == [f"busy-{number}"]
    await enqueue(store, "new", *range(4))
    await enqueue(store, "busy", *range(8, 12))
    first = await claim(store, 4)
    assert 1 <= sum(run_id.startswith("busy") for run_id in first) <= 3


@pytest.mark.parametrize("most_each", [None, 9])
async def test_a_claim_for_one_project_takes_no_run_that_another_one_has_lost(
    store: Store, most_each: int | None
) -> None:
    lost = await enqueue(store, "lost", *range(2))
    assert await store.hold_lease("gone", until="2027-01-01", renew=False)
    assert len(await claim(store, 2, owner="gone", project_id=lost)) == 2
    own = await enqueue(store, "own", *range(2))
    for project_id, expected in ((own, ["own-0"]), (own, ["own-1"]), (own, []), (lost, ["lost-0"])):
        about: dict[str, Any] = {"project_id": project_id, "most_each": most_each}
        assert await claim(store, 1, at="2028-01-01", **about) == expected


async def test_runs_that_were_begun_come_before_those_that_were_not(store: Store) -> None:
    await enqueue(store, "a", *range(3))
    assert await claim(store, 1) == ["a-0"]
    await store.append(batch(there(await store.run("a-0")), 0, b"1", owner="me"))
    await store.release_run("a-0", "me")
    await enqueue(store, "b", 0)
    assert (await claim(store, 2))[0] == "a-0"
