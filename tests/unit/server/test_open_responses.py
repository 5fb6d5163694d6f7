"""Answers that begin or end just when others are ended; who ends which is in `tests/contract`."""

import asyncio
from pathlib import Path

import pytest

from runglass.errors import StoreError
from runglass.server.http.open_responses import OpenResponses
from runglass.store.sqlite.store import SqliteStore
from tests.faulty_store import FaultyStore


async def test_an_answer_that_begins_once_its_key_is_revoked_or_the_server_stops_ends_at_once() -> None:
    open_responses, ended = OpenResponses(), list[str]()
    await open_responses.end_key(1)
    # Its request was let in just before.
    with open_responses.ended_by(lambda: ended.append("late"), key_id=1):
        pass
    open_responses.end_all()
    with open_responses.ended_by(lambda: ended.append("later")):
        assert ended == ["late", "later"]


def test_an_answer_that_ends_another_does_not_disturb_the_rest() -> None:
    open_responses, ended = OpenResponses(), []

    def end_and_leave() -> None:
        ended.append("one")
        other.__exit__(None, None, None)

    other = open_responses.ended_by(lambda: ended.append("two"))
    with open_responses.ended_by(end_and_leave):
        other.__enter__()
        open_responses.end_all()
    assert "one" in ended


async def test_a_store_that_fails_is_asked_again_and_without_open_responses_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    store, open_responses, ended = SqliteStore(tmp_path / "db"), OpenResponses(look_s=0.0), asyncio.Event()
    faults = FaultyStore(store)
    faults.answer("live_keys", set())
    faults.fail("live_keys", StoreError("away"), times=2)
    asked = faults.calls("live_keys")
    watching = asyncio.create_task(open_responses.watch(store))
    for _ in range(10):
        await asyncio.sleep(0)
    assert asked == []
    with open_responses.ended_by(ended.set, key_id=7):
        await ended.wait()
    watching.cancel()
    assert [set(call.args[0]) for call in asked[:3]] == [{7}] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
