"""A provider that sends too much, or falls silent, ends its own call and costs nobody memory or time."""

import asyncio
import threading
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable
from itertools import product
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from runglass.config.settings import USUAL, Settings
from runglass.engine.models.answer_bounds import (
    EVENT_LINES,
    HEADS,
    PART_LIMIT_BYTES,
    VALUES,
    ProviderCall,
    bound,
)
from runglass.engine.models.gateway import ModelAnswer, ModelCallFailed, ModelGateway, ModelRequest
from tests.unit.engine.fake_provider import (
    DONE,
    FakeProvider,
    Reply,
    chunk,
    error_reply,
    text_reply,
    whole_reply,
)
from tests.unit.engine.provider_families import CALL, FAMILIES, USAGE, Family, addressed

SMALL = Settings(answer_limit_bytes=64 << 10)
OVER = 128 << 10


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider().serving() as server:
        yield server


async def asked(
    fake: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    reply: Reply,
    *,
    limits: Settings = USUAL,
    is_cut: bool = True,
    **settings: Any,
) -> ModelAnswer | ModelCallFailed:
    """The outcome of one call; where it failed and `is_cut`, its connection is closed by then."""
    fake.replies.append(reply)
    request = ModelRequest(model=model, messages=[{"role": "user", "content": "Hi"}], settings=settings)
    async with ModelGateway(msgspec.structs.replace(limits, **addressed(fake, monkeypatch))) as models:
        try:
            return await models.complete(request, lambda text: None)
        except ModelCallFailed as failure:
            if is_cut:
                await fake.disconnected.wait()
            return failure


def padded(reply: Reply, padding: bytes) -> Reply:
    return msgspec.structs.replace(reply, body=padding + reply.body)


class Kind(NamedTuple):
    """A way to send too much or what is not taken, in a stream or in one piece, and how its call fails."""

    reply: Callable[[Family], Reply]
    streamed: bool = True
    limits: Settings = USUAL
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


def with_more(reply: Reply, **more: Any) -> Reply:
    return msgspec.structs.replace(reply, **more)


TOO_MUCH = {
    "a line without an end": Kind(lambda family: Reply(body=b"data: " + LONG.encode())),
    "an event of many lines": Kind(lambda family: Reply(body=b"data: x\n" * 100 * EVENT_LINES)),
    "a long part": Kind(lambda family: family.stream(LONG, False)),
    "an event of many values": Kind(lambda family: Reply(body=b'data: {"choices":[%s{}]}\n\n' % MANY)),
    "values beside a quote in a comment": Kind(
        lambda family: Reply(body=b': "\ndata: {"choices":[%s{}]}\n\n' % MANY)
    ),
    "lines of no event": Kind(
        lambda family: Reply(body=b'{"candidates":[{}\n\n' + b",{},{},{}\n\n" * 10_000)
    ),
    "lines of no event that never end": Kind(lambda family: Reply(body=b"x\n\r\n" * OVER)),
    "empty comments": Kind(lambda family: padded(family.stream("Hi", False), b":\n\n" * OVER), limits=SMALL),
    "empty lines": Kind(lambda family: padded(family.stream("Hi", False), b"\n" * OVER), limits=SMALL),
    "an error": Kind(lambda family: padded(error_reply(500, "no"), b" " * OVER), limits=SMALL),
    "an answer in one piece": Kind(
        lambda family: padded(family.whole("Hi", False), b" " * OVER), streamed=False, limits=SMALL
    ),
    "a refusal": Kind(
        lambda family: padded(error_reply(401, "no"), b" " * OVER), limits=SMALL, may_be_charged=False
    ),
    "a packed answer": Kind(
        lambda family: with_more(family.stream("Hi", False), headers={"content-encoding": "gzip"}),
        code=AWAY,
        said="'gzip'",
    ),
    "another encoding": Kind(
        lambda family: Reply(body=UTF_16, headers={"content-type": "application/json"}),
        streamed=False,
        code=AWAY,
        said="not in UTF-8",
    ),
    "hints for ever": Kind(
        lambda family: with_more(family.stream("Hi", False), before=HINT * 2 * HEADS),
        code=AWAY,
        said="no answer",
    ),
    "silence": Kind(
        lambda family: Reply(body=b"\n\n", silent=True),
        limits=Settings(answer_idle_limit_s=0.001),
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
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch, family: str, kind: str
) -> None:
    way, model = TOO_MUCH[kind], FAMILIES[family].model
    reply = way.reply(FAMILIES[family])
    failure = await asked(fake, monkeypatch, model, reply, limits=way.limits, stream=way.streamed)
    assert isinstance(failure, ModelCallFailed)
    assert (failure.code, failure.may_be_charged, failure.may_retry) == (
        way.code,
        way.may_be_charged,
        way.may_retry,
    )
    assert model in failure.message
    assert way.said in failure.message
    assert [headers["accept-encoding"] for headers in fake.headers] == ["identity"]


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
async def test_an_encoding_that_an_answer_is_said_to_have_does_not_hold(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    reply = FAMILIES[family].whole("+AHs-", False)
    reply = msgspec.structs.replace(reply, headers={"content-type": "application/json; charset=utf-7"})
    answer = await asked(fake, monkeypatch, FAMILIES[family].model, reply, is_cut=False, stream=False)
    assert isinstance(answer, ModelAnswer)
    assert answer.output == {"text": "+AHs-"}


async def test_a_project_holds_one_large_answer_at_a_time() -> None:
    class Stream(httpx.AsyncByteStream):
        def __init__(self) -> None:
            self.asked_for_more, self.more = asyncio.Event(), asyncio.Event()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b" " * PART_LIMIT_BYTES
            self.asked_for_more.set()
            await self.more.wait()

    streams, reading = [Stream(), Stream()], []
    for stream in streams:
        response = httpx.Response(200, stream=stream)
        call = ProviderCall("local:tiny", None, is_streamed=False)
        bound(call, response, USUAL, may_be_charged=True)
        reading.append(asyncio.create_task(response.aread()))
    first, second = streams
    await first.asked_for_more.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not second.asked_for_more.is_set()
    first.more.set()
    await second.asked_for_more.wait()
    second.more.set()
    assert [len(data) for data in await asyncio.gather(*reading)] == [3 * PART_LIMIT_BYTES] * 2


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_few_hints_are_passed_over_and_cookies_are_not_kept(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    cookie = {"set-cookie": "a=b; Path=/; Max-Age=1000"}
    reply = with_more(FAMILIES[family].stream("Hi", False), headers=cookie, before=HINT * 3)
    fake.replies += [reply, reply]
    request = ModelRequest(
        model=FAMILIES[family].model, messages=[{"role": "user", "content": "Hi"}], settings={"stream": True}
    )
    async with ModelGateway(Settings(**addressed(fake, monkeypatch))) as models:
        for _ in range(2):
            await models.complete(request, lambda text: None)
    assert ["cookie" in headers for headers in fake.headers] == [False, False]


PIECE = "x" * (PART_LIMIT_BYTES // 3)
CALLED = {"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": ""}}
ARGUMENTS = {"tool_calls": [{"index": 0, "function": {"arguments": PIECE}}]}


def in_pieces(*deltas: dict[str, Any]) -> Reply:
    return Reply(body=b"".join(map(chunk, deltas)) + chunk({}, finish="stop") + DONE)


@pytest.mark.parametrize(
    ("reply", "streamed"),
    [
        (in_pieces({"tool_calls": [CALLED]}, *[ARGUMENTS] * 4), True),
        (in_pieces(*[{"reasoning_content": PIECE}] * 4), True),
        (in_pieces(*[{"content": PIECE}] * 4), True),
        (Reply(body=b'{"choices":[%s{}]}' % MANY), True),
        (whole_reply("", tool_calls=[CALL | {"function": {"name": "look", "arguments": LONG}}]), False),
        (whole_reply(LONG), False),
        (Reply(body=b'{"choices":[%s{}]}' % MANY, headers={"content-type": "application/json"}), False),
    ],
    ids=[
        "small parts of the arguments of a tool call",
        "small parts of reasoning",
        "small parts of a text",
        "values in the place of events",
        "arguments of a tool call in one piece",
        "text in one piece",
        "values in one piece",
    ],
)
async def test_parts_of_an_answer_are_bounded(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch, reply: Reply, streamed: bool
) -> None:
    failure = await asked(fake, monkeypatch, "local:tiny", reply, is_cut=False, stream=streamed)
    assert isinstance(failure, ModelCallFailed)
    assert (failure.code, failure.may_be_charged, failure.may_retry) == ("OUTPUT_TOO_LARGE", True, False)
    assert failure.__cause__ is None, "whoever looks for the first cause must come to an end"


@pytest.mark.parametrize("ends", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n"])
async def test_a_long_answer_of_many_events_is_taken_whatever_its_line_ends(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch, ends: bytes
) -> None:
    # Far more values than one event may have, too.
    frames = [chunk({"content": "word "}), *[chunk({})] * 8000, chunk({}, finish="stop"), DONE]
    reply = Reply(body=BOM_UTF8 + b"".join(frames).replace(b"\n\n", ends))
    assert len(reply.body) > PART_LIMIT_BYTES
    answer = await asked(fake, monkeypatch, "local:tiny", reply)
    assert isinstance(answer, ModelAnswer)
    assert answer.output == {"text": "word "}


async def test_events_that_a_library_asked_for_by_itself_have_the_bounds_of_a_stream(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anthropic's does where an answer may take longer than ten minutes, as without `max_tokens`."""
    reply = padded(
        FAMILIES["anthropic"].stream("Hi", False), b'event: ping\ndata: {"type": "ping"}\n\n' * VALUES
    )
    answer = await asked(fake, monkeypatch, FAMILIES["anthropic"].model, reply, is_cut=False, stream=False)
    assert isinstance(answer, ModelAnswer)
    assert (answer.output, fake.requests[0]["stream"]) == ({"text": "Hi"}, True)


async def test_a_call_that_is_cut_off_in_its_turn_leaves_the_turn_to_others(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.replies += [text_reply("Hi", usage=USAGE), text_reply("Hello", usage=USAGE)]
    request = ModelRequest(model="local:tiny", messages=[{"role": "user", "content": "Hi"}])
    async with ModelGateway(Settings(**addressed(fake, monkeypatch))) as models:

        def leave(text: str) -> None:
            cut.cancel()

        cut = asyncio.create_task(models.complete(request, leave))
        with pytest.raises(asyncio.CancelledError):
            await cut
        answer = await models.complete(request, lambda text: None)
    assert answer.output == {"text": "Hello"}
