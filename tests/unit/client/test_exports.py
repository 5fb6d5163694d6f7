"""A run as a file: asked for again until it begins, and never half of it for the whole."""

import pytest

from runglass import APIConnectionError
from tests.unit.client.scripted import (
    LAST_CHUNK,
    Exchange,
    ScriptedServer,
    answers,
    hangs_up,
    in_chunk,
    refuses,
)
from tests.unit.client.sides import RUN, Side

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
