"""A provider that sends too much, or falls silent, ends its own call and costs nobody memory or time."""

import asyncio
import threading
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import httpx
import pytest
from msgspec.structs import replace

from runglass.config.settings import USUAL
from runglass.engine.models.answer_bounds import (
    EVENT_LINES,
    HEADS,
    PART_LIMIT_BYTES,
    VALUES,
    ProviderCall,
    bound,
)
from runglass.engine.models.gateway import ModelCallFailed, ModelRequest
from tests.unit.engine.bench import HELLO, Bench, bench_with, open_bench
from tests.unit.engine.fake_provider import COMPATIBLE, DONE, FAMILIES, Family, Reply, chunk, error_reply, put

SMALL = {"answer_limit_bytes": 64 << 10}
OVER = 128 << 10

bench = bench_with()


def padded(reply: Reply, padding: bytes) -> Reply:
    return replace(reply, body=padding + reply.body)


class Kind(NamedTuple):
    """A way to send too much or what is not taken, in a stream or in one piece, and how its call fails."""

    reply: Reply | Callable[[Family], Reply]
    streamed: bool = True
    limits: Mapping[str, float] = {}
    code: str = "OUTPUT_TOO_LARGE"
    may_be_charged: bool = True
    may_retry: bool = False
    said: str = ""


LONG = "x" * 2 * PART_LIMIT_BYTES
MANY = b"{}," * 100_000
# A byte of the letter is that of a quote.
UTF_16 = (b'{"id":"\xc4\xa2","choices":[%s{}]}' % MANY).decode().encode("utf-16-le")
HINT = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
AWAY = "PROVIDER_UNAVAILABLE"


def in_json(body: bytes) -> Reply:
    return Reply(body=body, headers={"content-type": "application/json"})


TOO_MUCH = {
    "a line without an end": Kind(Reply(body=b"data: " + LONG.encode())),
    "an event of many lines": Kind(Reply(body=b"data: x\n" * 100 * EVENT_LINES)),
    "a long part": Kind(lambda family: family.reply(LONG)),
    "an event of many values": Kind(Reply(body=b'data: {"choices":[%s{}]}\n\n' % MANY)),
    "values beside a quote in a comment": Kind(Reply(body=b': "\ndata: {"choices":[%s{}]}\n\n' % MANY)),
    "lines of no event": Kind(Reply(body=b'{"candidates":[{}\n\n' + b",{},{},{}\n\n" * 10_000)),
    "lines of no event that never end": Kind(Reply(body=b"x\n\r\n" * OVER)),
    "empty comments": Kind(lambda family: padded(family.reply(), b":\n\n" * OVER), limits=SMALL),
    "empty lines": Kind(lambda family: padded(family.reply(), b"\n" * OVER), limits=SMALL),
    "an error": Kind(padded(error_reply(500, "no"), b" " * OVER), limits=SMALL),
    "an answer in one piece": Kind(
        lambda family: padded(family.reply(streamed=False), b" " * OVER), streamed=False, limits=SMALL
    ),
    "a refusal": Kind(padded(error_reply(401, "no"), b" " * OVER), limits=SMALL, may_be_charged=False),
    "a packed answer": Kind(
        lambda family: replace(family.reply(), headers={"content-encoding": "gzip"}),
        code=AWAY,
        said="'gzip'",
    ),
    "another encoding": Kind(in_json(UTF_16), streamed=False, code=AWAY, said="not in UTF-8"),
    "hints for ever": Kind(
        lambda family: replace(family.reply(), before=HINT * 2 * HEADS),
        code=AWAY,
        said="no answer",
    ),
    "silence": Kind(
        Reply(body=b"\n\n", silent=True),
        limits={"answer_idle_limit_s": 0.001},
        code=AWAY,
        may_retry=True,
        said="sent nothing for 0.001 s",
    ),
}


@pytest.mark.parametrize(
    ("family", "kind"),
    # Google's library takes a comment for garbled JSON, and reads no further.
    [each for each in product(FAMILIES, TOO_MUCH) if each != ("google", "empty comments")],
)
async def test_too_much_of_any_provider_ends_the_call_and_is_paid_for(
    monkeypatch: pytest.MonkeyPatch, family: str, kind: str
) -> None:
    way, model = TOO_MUCH[kind], FAMILIES[family].model
    async with open_bench(monkeypatch, **way.limits) as bench:
        reply = way.reply if isinstance(way.reply, Reply) else way.reply(FAMILIES[family])
        failure = await bench.failure(reply, model=model, settings={"stream": way.streamed})
        await bench.fake.until_all_left()
    assert isinstance(failure, ModelCallFailed)
    assert (failure.code, failure.may_be_charged, failure.may_retry) == (
        way.code,
        way.may_be_charged,
        way.may_retry,
    )
    assert model in failure.message
    assert way.said in failure.message
    assert [headers["accept-encoding"] for headers in bench.fake.headers] == ["identity"]


@pytest.mark.parametrize(("size", "here"), [(3 * VALUES, True), (PART_LIMIT_BYTES, False)])
async def test_a_large_answer_in_one_piece_is_weighed_beside_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, size: int, here: bool
) -> None:
    threads: list[int] = []
    weigh = "runglass.engine.models.answer_bounds.weighs_more"
    monkeypatch.setattr(weigh, lambda data, most: threads.append(threading.get_ident()))
    response = httpx.Response(200, stream=httpx.ByteStream(b" " * size))
    bound(ProviderCall("local:tiny", None, is_streamed=False), response, USUAL, may_be_charged=True)
    assert len(await response.aread()) == size
    assert [thread == threading.get_ident() for thread in threads] == [here]


@pytest.mark.parametrize("family", ["google", "mistral"])
async def test_an_encoding_that_an_answer_is_said_to_have_does_not_hold(bench: Bench, family: str) -> None:
    headers = {"content-type": "application/json; charset=utf-7"}
    reply = replace(FAMILIES[family].reply("+AHs-", streamed=False), headers=headers)
    answer = await bench.ask(reply, model=FAMILIES[family].model, settings={"stream": False})
    assert answer.output == {"text": "+AHs-"}


async def test_a_project_holds_one_large_answer_at_a_time() -> None:
    async def large(asked_for_more: asyncio.Event, more: asyncio.Event) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * PART_LIMIT_BYTES
        asked_for_more.set()
        await more.wait()

    streams, reading = [(asyncio.Event(), asyncio.Event()) for _ in range(2)], []
    for events in streams:
        response = httpx.Response(200, content=large(*events))
        call = ProviderCall("local:tiny", None, is_streamed=False)
        bound(call, response, USUAL, may_be_charged=True)
        reading.append(asyncio.create_task(response.aread()))
    (first, first_more), (second, second_more) = streams
    await first.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not second.is_set()
    first_more.set()
    await second.wait()
    second_more.set()
    assert [len(data) for data in await asyncio.gather(*reading)] == [3 * PART_LIMIT_BYTES] * 2


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_few_hints_are_passed_over_and_cookies_are_not_kept(bench: Bench, family: str) -> None:
    cookie = {"set-cookie": "a=b; Path=/; Max-Age=1000"}
    reply = replace(FAMILIES[family].reply(), headers=cookie, before=HINT * 3)
    for _ in range(2):
        await bench.ask(reply, model=FAMILIES[family].model)
    assert ["cookie" in headers for headers in bench.fake.headers] == [False, False]


PIECE = "x" * (PART_LIMIT_BYTES // 3)
CALLED = {"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": ""}}
ARGUMENTS = {"tool_calls": [{"index": 0, "function": {"arguments": PIECE}}]}


def in_pieces(*deltas: dict[str, Any]) -> Reply:
    return Reply(body=b"".join(map(chunk, deltas)) + chunk({}, finish="stop") + DONE)


PARTS = {
    "small parts of the arguments of a tool call": (
        in_pieces({"tool_calls": [CALLED]}, *[ARGUMENTS] * 4),
        True,
    ),
    "small parts of reasoning": (in_pieces(*[{"reasoning_content": PIECE}] * 4), True),
    "small parts of a text": (in_pieces(*[{"content": PIECE}] * 4), True),
    "values in the place of events": (Reply(body=b'{"choices":[%s{}]}' % MANY), True),
    "arguments": (COMPATIBLE.reply(streamed=False, calls=True, change=put(LONG, "arguments")), False),
    "a text": (COMPATIBLE.reply(LONG, streamed=False), False),
    "values": (in_json(b'{"choices":[%s{}]}' % MANY), False),
}


@pytest.mark.parametrize("what", PARTS)
async def test_parts_of_an_answer_are_bounded(bench: Bench, what: str) -> None:
    reply, streamed = PARTS[what]
    failure = await bench.failure(reply, settings={"stream": streamed})
    assert isinstance(failure, ModelCallFailed)
    assert (failure.code, failure.may_be_charged, failure.may_retry) == ("OUTPUT_TOO_LARGE", True, False)
    assert failure.__cause__ is None, "whoever looks for the first cause must come to an end"


@pytest.mark.parametrize("ends", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n"])
async def test_a_long_answer_of_many_events_is_taken_whatever_its_line_ends(
    bench: Bench, ends: bytes
) -> None:
    # Far more values than one event may have, too.
    frames = [chunk({"content": "word "}), *[chunk({})] * 8000, chunk({}, finish="stop"), DONE]
    reply = Reply(body=BOM_UTF8 + b"".join(frames).replace(b"\n\n", ends))
    assert len(reply.body) > PART_LIMIT_BYTES
    assert (await bench.ask(reply)).output == {"text": "word "}


async def test_events_that_a_library_asked_for_by_itself_have_the_bounds_of_a_stream(bench: Bench) -> None:
    """Anthropic's does where an answer may take longer than ten minutes, as without `max_tokens`."""
    reply = padded(FAMILIES["anthropic"].reply(), b'event: ping\ndata: {"type": "ping"}\n\n' * VALUES)
    answer = await bench.ask(reply, model=FAMILIES["anthropic"].model, settings={"stream": False})
    assert (answer.output, bench.fake.requests[0]["stream"]) == ({"text": "Hello"}, True)


async def test_a_call_that_is_cut_off_in_its_turn_leaves_the_turn_to_others(bench: Bench) -> None:
    def leave(text: str) -> None:
        cut.cancel()

    bench.fake.replies.append(COMPATIBLE.reply("Hi"))
    cut = asyncio.create_task(bench.models.complete(ModelRequest(model="local:tiny", messages=HELLO), leave))
    with pytest.raises(asyncio.CancelledError):
        await cut
    assert (await bench.ask(COMPATIBLE.reply("Hello"))).output == {"text": "Hello"}
