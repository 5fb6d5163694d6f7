"""Lists of runs page by page, runs as files, and managing flows."""

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest

from runglass import APIConnectionError, Client
from runglass.client.api.admin import Management
from tests.unit.client.recording import page
from tests.unit.client.scripted import (
    LAST_CHUNK,
    Exchange,
    Scene,
    ScriptedServer,
    answers,
    hangs_up,
    in_chunk,
    refuses,
)
from tests.unit.client.sides import RUN, Blocking, Side


def targets(server: ScriptedServer) -> list[str]:
    return [request.target.removeprefix("/api/v1/flow-runs") for request in server.requests]


def test_a_loop_walks_all_pages_with_the_same_filter_and_from_its_start_each_time(
    server: ScriptedServer, side: Side
) -> None:
    pages = [page("r5", "r4", cursor="c1"), page("r3", cursor="c2"), page()]
    server.plays(*pages, *pages)
    client = side.client(server.url)
    for _ in range(2):
        ids = [run.id for run in side.events(client.runs(status="failed", limit=2, cursor="c0"))]
        assert ids == ["r5", "r4", "r3"]
    assert targets(server) == 2 * [
        "?status=failed&limit=2&cursor=c0",
        "?status=failed&limit=2&cursor=c1",
        "?status=failed&limit=2&cursor=c2",
    ]


def test_a_copy_of_a_page_has_its_runs_and_says_that_it_cannot_ask_for_more(server: ScriptedServer) -> None:
    server.plays(page("r2", cursor="c"))
    with Client("nk_test", base_url=server.url) as client:
        runs = iter(copy.copy(client.runs()))
    assert next(runs).id == "r2"
    with pytest.raises(RuntimeError, match="cursor="):
        next(runs)


SESSION = "0198c0de-0000-7000-8000-00000000000a"


def executions(*ids: str, cursor: str | None) -> Scene:
    """A page of a session."""
    about = {"flowId": "f", "slug": "s", "triggerType": "execute", "status": "completed"}
    about |= {"traceCaptureMode": "full"}
    runs = [{"executionId": each, "snapshotsAvailable": True, "steps": [], **about} for each in ids]
    return answers({"sessionId": SESSION, "executions": runs, "nextCursor": cursor})


def test_the_runs_of_a_session_come_page_by_page(server: ScriptedServer, side: Side) -> None:
    server.plays(executions("r1", "r2", cursor="c2"), executions("r3", cursor=None))
    runs = side.following(side.client(server.url).session(SESSION, limit=2))
    assert [next(runs).execution_id, next(runs).execution_id] == ["r1", "r2"]
    assert len(server.requests) == 1, "the next page is asked for when the loop comes to it"
    assert [run.execution_id for run in runs] == ["r3"]
    path = f"/api/v1/seq/sessions/{SESSION}?limit=2"
    assert [each.target for each in server.requests] == [path, f"{path}&cursor=c2"]


CHUNKED = {"transfer-encoding": "chunked", "content-type": "application/jsonl"}


async def breaks_off(exchange: Exchange) -> None:
    await exchange.start(200, CHUNKED)
    await exchange.send(in_chunk(b"one\n"))


async def says_all(exchange: Exchange) -> None:
    await exchange.start(200, CHUNKED)
    await exchange.send(in_chunk(b"one\n") + in_chunk(b"two\n") + LAST_CHUNK)


def test_all_of_it_comes_and_the_format_is_asked_for(server: ScriptedServer, side: Side) -> None:
    server.plays(says_all)
    parts = side.following(side.client(server.url).run(RUN).export("jsonl"))
    assert b"".join(parts) == b"one\ntwo\n"
    assert [each.target for each in server.requests] == [f"/api/v1/flow-runs/{RUN}/export?format=jsonl"]


def test_it_is_asked_for_again_where_nothing_of_it_came(server: ScriptedServer, side: Side) -> None:
    server.plays(hangs_up, refuses(503, "UNAVAILABLE"), says_all)
    parts = side.following(side.client(server.url).run(RUN).export())
    assert b"".join(parts) == b"one\ntwo\n"
    assert len(server.requests) == 3


def test_one_that_breaks_off_is_an_error_and_not_begun_again(server: ScriptedServer, side: Side) -> None:
    server.plays(breaks_off)
    parts = side.following(side.client(server.url).run(RUN).export())
    assert next(parts) == b"one\n"
    with pytest.raises(APIConnectionError, match="export"):
        next(parts)
    assert len(server.requests) == 1


def test_an_empty_answer_has_no_parts(server: ScriptedServer, side: Side) -> None:
    server.plays(answers(b""))
    assert list(side.following(side.client(server.url).run(RUN).export())) == []


def test_a_file_that_is_not_open_for_bytes_is_refused_before_any_request(
    server: ScriptedServer, side: Side
) -> None:
    for file in ("run.jsonl", io.StringIO("{}")):
        with pytest.raises(ValueError, match="open for bytes"):
            side.value(side.client(server.url).import_run(file))
    assert server.requests == []


GREET = ("acme", "demo", "greet")


@pytest.fixture
def manage(server: ScriptedServer) -> Iterator[Management]:
    with Client("nk_test", base_url=server.url) as client:
        yield Management(client)


def test_names_are_quoted_and_what_no_path_can_carry_is_refused(
    server: ScriptedServer, manage: Management
) -> None:
    server.plays(answers({"version": 1}))
    assert manage.publish("a b", "c/d", "é") == 1
    for bad in ("", ".", ".."):
        with pytest.raises(ValueError, match="a name of an org, a project or a flow may not be"):
            manage.publish("acme", "demo", bad)
    assert [each.target for each in server.requests] == ["/api/v1/flows/a%20b/c%2Fd/%C3%A9/publish"]


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None])
def test_a_version_that_cannot_be_in_production_is_refused_before_any_request(
    server: ScriptedServer, manage: Management, version: Any
) -> None:
    with pytest.raises(ValueError, match="from 1 on"):
        manage.set_production(*GREET, version)
    assert server.requests == []


def test_a_call_is_tried_again_as_it_sets_a_state(server: ScriptedServer) -> None:
    server.plays(answers({}, status=502), answers({"version": 1}))
    side = Blocking()
    try:
        assert Management(side.client(server.url)).publish(*GREET) == 1
    finally:
        side.close()
    assert len(server.requests) == 2
