"""Gains in decoding that must not be lost: what is tracked, copied and asked, never absolute times."""

import tracemalloc

import httpx2
import pytest

from runglass.wire.sse import Decoder, frames
from tests.unit.client.scripted import ScriptedServer, answers
from tests.unit.client.sides import RUN, Asyncio, Blocking, Side


def test_a_large_frame_is_held_twice_at_most() -> None:
    """Once as it comes in and once as it goes out, with some room to grow."""
    size = 4 << 20
    stream = frames([(1, "step_output", b'{"text":"%b"}' % (b"x" * size))])
    chunks = [stream[at : at + (16 << 10)] for at in range(0, len(stream), 16 << 10)]
    decoder = Decoder()
    tracemalloc.start()
    try:
        found = [frame for chunk in chunks for frame in decoder.feed(chunk)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 1
    assert len(found[0].data) > size
    assert peak < 2.4 * size


@pytest.mark.parametrize("kind", [Blocking, Asyncio])
def test_a_body_is_not_kept_in_parts_and_joined(kind: type[Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """The HTTP library's own way of reading one has it in memory twice."""

    def refuse(_: httpx2.Response) -> None:
        raise AssertionError("the library was asked to join the parts of the body")

    monkeypatch.setattr(httpx2.Response, "read", refuse)
    monkeypatch.setattr(httpx2.Response, "aread", refuse)
    trace = {"flowRun": {"id": RUN, "flowId": "f", "status": "completed"}, "steps": []}
    side = kind()
    with ScriptedServer() as server:
        server.plays(answers(trace, chunked=True))
        try:
            assert side.value(side.client(server.url).run(RUN).trace()).flow_run.id == RUN
        finally:
            side.close()
