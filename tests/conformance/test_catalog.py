"""What every store must do with projects, keys, sessions of browsers and flows, and say of their changes."""

import asyncio
from decimal import Decimal

import pytest

from runglass.errors import KeyLimitReached, StoreError
from runglass.store.base import Store
from runglass.store.records import ApiKey, Retention, ViewerSession
from runglass.wire.admin_api import SERVER, Actor
from tests.conformance.stores import batch, make_run, run_with
from tests.records import there

JANE = Actor(kind="cli", name="jane")


async def test_a_project_is_created_once_and_keeps_its_settings(store: Store) -> None:
    first, second = await asyncio.gather(store.ensure_project("a", "b"), store.ensure_project("a", "b"))
    assert first == second
    assert await store.find_project("a", "c") is None
    await store.set_capture(first.id, "metadata_only", "redacted", 0.05)
    changed = there(await store.project(first.id))
    assert changed.capture == "metadata_only"
    assert (changed.capture_failed, changed.capture_sample) == ("redacted", 0.05)
    assert await store.projects() == [changed]
    assert changed.allowed_models is None
    for patterns in (["openai:*", "local:é"], []):
        await store.set_allowed_models(first.id, patterns)
        assert there(await store.project(first.id)).allowed_models == tuple(patterns)
    await store.set_allowed_models(first.id, None)
    assert await store.project(first.id) == changed


async def test_a_revoked_key_is_still_known_but_marked_and_makes_room_for_another(store: Store) -> None:
    project = await store.ensure_project("acme", "demo")
    other = await store.ensure_project("acme", "other")
    first = await store.add_key(project.id, "run", b"1", "nk_live_1", most=2)
    second = await store.add_key(project.id, "run", b"2", "nk_live_2", most=2)
    with pytest.raises(KeyLimitReached, match="max_keys_per_project"):
        await store.add_key(project.id, "run", b"3", "nk_live_3", most=2)
    theirs = await store.add_key(other.id, "run", b"4", "nk_live_4", most=2)
    assert await store.keys(other.id) == [theirs]
    assert await store.live_keys([first.id, second.id, 99]) == {first.id, second.id}
    assert await store.find_key(b"1") == first
    assert await store.find_key(b"other") is None
    assert await store.revoke_key(other.id, first.id) is False, "a key of another project"
    assert await store.revoke_key(project.id, first.id) is True
    assert await store.revoke_key(project.id, first.id) is False
    found = there(await store.find_key(b"1"))
    assert found.revoked_at is not None
    assert await store.keys(project.id) == [found, second]
    assert await store.live_keys([first.id, second.id]) == {second.id}
    await store.add_key(project.id, "run", b"3", "nk_live_3", most=2)


async def sign_in(store: Store, key: ApiKey, digest: bytes, *, minute: int) -> None:
    """Adds a session that was used in this minute; a key has three at most, and a project five."""
    at = f"2026-01-01T00:{minute:02}:00.000Z"
    session = ViewerSession(digest=digest, key=key, began_at=at, used_at=at)
    await store.add_viewer_session(session, most_of_key=3, most_of_project=5)


async def test_a_session_of_a_browser_is_found_with_its_key_until_it_is_ended(store: Store) -> None:
    project = await store.ensure_project("a", "b")
    key = await store.add_key(project.id, "read", b"digest", "nk_abc")
    await sign_in(store, key, b"one", minute=1)
    found = await store.viewer_session(b"one")
    began_at = "2026-01-01T00:01:00.000Z"
    assert found == ViewerSession(digest=b"one", key=key, began_at=began_at, used_at=began_at)
    await store.use_viewer_session(b"one", "2026-01-01T00:02:00.000Z")
    await store.revoke_key(project.id, key.id)
    found = there(await store.viewer_session(b"one"))
    assert (found.began_at, found.used_at) == (began_at, "2026-01-01T00:02:00.000Z")
    assert found.key.revoked_at is not None
    await store.end_viewer_session(b"one")
    await store.end_viewer_session(b"one")
    assert await store.viewer_session(b"one") is None


async def test_the_session_that_was_used_longest_ago_makes_room_in_its_key_or_its_project(
    store: Store,
) -> None:
    async def which_are_left(*digests: bytes) -> list[bytes]:
        return [digest for digest in digests if await store.viewer_session(digest) is not None]

    project, other = [await store.ensure_project("a", name) for name in ("b", "c")]
    keys = [await store.add_key(project.id, "read", b"key-%d" % number, "nk_") for number in range(4)]
    stranger = await store.add_key(other.id, "read", b"stranger", "nk_")
    await sign_in(store, stranger, b"theirs", minute=0)
    for number in range(3):
        await sign_in(store, keys[0], b"%d" % number, minute=number)
    await store.use_viewer_session(b"0", "2026-01-01T00:10:00.000Z")
    await sign_in(store, keys[0], b"3", minute=3)
    assert await which_are_left(b"0", b"1", b"2", b"3") == [b"0", b"2", b"3"]
    for number in range(1, 4):
        await sign_in(store, keys[number], b"of-%d" % number, minute=20 + number)
    left = await which_are_left(b"0", b"2", b"3", b"of-1", b"of-2", b"of-3", b"theirs")
    assert left == [b"0", b"3", b"of-1", b"of-2", b"of-3", b"theirs"]


async def test_a_draft_takes_the_place_of_the_one_before_and_is_not_put_in_production(store: Store) -> None:
    project = await store.ensure_project("acme", "demo")
    flow = await store.put_draft(project.id, "f", name="One", capture=None, source=b"first")
    changed = await store.put_draft(project.id, "f", name="Two", capture="full", source=b"second")
    assert (changed.id, changed.name, changed.capture) == (flow.id, "Two", "full")
    assert not await store.set_production(flow.id, 0)
    with pytest.raises(StoreError, match="no draft"):
        await store.publish("nowhere")


def changed(what: str, **settings: tuple[object, object]) -> tuple[str, Actor, dict[str, object]]:
    """What the audit log has of a change of settings, each with its value before and after."""
    before, after = ({name: values[at] for name, values in settings.items()} for at in (0, 1))
    return f"project.{what}", JANE, {"before": before, "after": after}


async def test_changes_of_settings_have_before_and_after(store: Store) -> None:
    project = await store.ensure_project("acme", "demo")
    await store.ensure_project("acme", "demo", by=JANE)
    for _ in range(2):
        await store.set_capture(project.id, "metadata_only", "redacted", 0.05, by=JANE)
        await store.set_budget(project.id, Decimal("5.25"), by=JANE)
        await store.set_retention(project.id, Retention(30, None), by=JANE)
    await store.set_budget(project.id, None, by=JANE)
    told = await store.audit(project.id, limit=10)
    assert [(entry.action, entry.actor, entry.details) for entry in reversed(told)] == [
        ("project.created", SERVER, {}),
        changed(
            "capture",
            capture=(None, "metadata_only"),
            captureFailed=(None, "redacted"),
            captureSample=(None, 0.05),
        ),
        changed("budget", budgetUsd=(None, "5.25")),
        changed("retention", retentionDays=(None, 30), contentRetentionDays=(None, None)),
        changed("budget", budgetUsd=("5.25", None)),
    ]
    assert {entry.subject for entry in told} == {"acme/demo"}


async def test_removal_by_retention_is_not_in_the_audit_log(store: Store) -> None:
    for run_id, by in (("one", None), ("two", JANE)):
        run = await run_with(store, run_id=run_id, status="failed")
        assert await store.purge_runs([run.no], by=by)
    told = await store.audit(None, action="run.purged", limit=10)
    assert [(entry.subject, entry.actor) for entry in told] == [("two", JANE)]


async def test_a_change_and_its_entry_are_one_transaction(store: Store) -> None:
    run = await run_with(store, status="failed")
    project, flow = await store.project(run.project_id), await store.flow(run.flow_id)
    key = await store.add_key(run.project_id, "run", b"digest", "nk_live_1")
    # An entry with half a character cannot be written.
    nobody = Actor(kind="cli", name="\ud800")
    for change in (
        store.ensure_project("acme", "other", by=nobody),
        store.set_capture(run.project_id, "full", by=nobody),
        store.set_budget(run.project_id, Decimal(1), by=nobody),
        store.set_retention(run.project_id, Retention(1, 1), by=nobody),
        store.add_key(run.project_id, "run", b"other", "nk_live_2", by=nobody),
        store.revoke_key(run.project_id, key.id, by=nobody),
        store.put_draft(run.project_id, "flow", name="other", capture=None, source=b"{}", by=nobody),
        store.publish(run.flow_id, by=nobody),
        store.purge_runs([run.no], by=nobody),
    ):
        with pytest.raises(StoreError):
            await change
    assert await store.projects() == [project]
    assert await store.keys(run.project_id) == [key]
    assert await store.flow(run.flow_id) == flow
    assert [version.version for version in await store.versions(run.flow_id)] == [0]
    assert await store.run(run.id) is not None


async def test_a_deleted_flow_frees_its_slug_and_its_runs_stay(store: Store) -> None:
    run = await make_run(store)
    await store.publish(run.flow_id)
    assert await store.delete_flow(run.flow_id) == 1, "its run has not ended"
    assert len(await store.flows(run.project_id)) == 1

    await store.append(batch(run, 0, b"{}"))
    await store.append(batch(run, 1, b"{}", status="completed", ended_at="2026-11-29T12:00:00.000Z"))
    assert await store.delete_flow(run.flow_id, by=JANE) == 0
    assert await store.delete_flow(run.flow_id, by=JANE) == 0, "once more"
    assert await store.flows(run.project_id) == []
    flow = there(await store.flow(run.flow_id))
    assert (flow.slug, flow.deleted, flow.production_version) == ("flow", True, None)
    for slug in ("flow", f"flow~{flow.id}"):
        assert await store.find_flow(run.project_id, slug) is None
    assert there(await store.run(run.id)).status == "completed"
    # The run was of the draft.
    assert [each.version for each in await store.versions(flow.id)] == [0]
    entries = await store.audit(run.project_id, action="flow.deleted", limit=9)
    assert [(entry.subject, entry.actor) for entry in entries] == [("flow", JANE)]

    again = await store.put_draft(run.project_id, "flow", name=None, capture=None, source=b"{}")
    assert again.id != flow.id
    assert await store.delete_flow(again.id) == 0
    assert await store.versions(again.id) == []
    recorded = await store.recorded_flow(run.project_id, "flow", most=1)
    assert (recorded.slug, recorded.recorded) == ("flow", True)
    assert await store.delete_flow(recorded.id) == 0
    assert (await store.recorded_flow(run.project_id, "other", most=1)).slug == "other", "it counts no more"
