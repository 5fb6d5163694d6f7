"""Gains in decoding that must not be lost: what is tracked, copied and asked, never absolute times."""

import gc
import tracemalloc

import httpx2
import msgspec
import pytest

from runglass.client.core.stream_cursor import TailCursor
from runglass.log.events import FlowCompleted, KnownEvent, StepCompleted, StepStarted, encode_event
from runglass.log.trace import RunSummary, StepTrace, TokenBreakdown, Trace
from runglass.wire.sse import Decoder, frames
from tests.unit.client.scripted import ScriptedServer, answers
from tests.unit.client.sides import RUN, Asyncio, Blocking, Side


def test_the_collector_does_not_walk_the_steps_of_a_trace() -> None:
    """It would walk them again and again while a long trace is decoded, and make it cost more per step."""
    step = StepTrace(
        step_id="s",
        loop_index=7,
        loop_path=(7,),
        tokens=TokenBreakdown(prompt=1, completion=1, total=2),
        input_context={"message": "x"},
    )
    summary = RunSummary(id="r", flow_id="f", status="completed")
    data = msgspec.json.encode(Trace(flow_run=summary, steps=[step] * 100))
    trace = msgspec.json.decode(data, type=Trace)
    held = [part for each in trace.steps for part in (each, each.tokens)]
    assert not any(map(gc.is_tracked, (*held, trace.flow_run)))


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


def test_a_live_trace_makes_up_no_name_for_an_event_that_is_fine() -> None:
    """The stream is named in messages of errors alone."""

    class NamedTail(TailCursor):
        named = 0

        def __str__(self) -> str:
            self.named += 1
            return super().__str__()

    events: list[KnownEvent] = [
        StepStarted(execution_id="r", seq=1, step_id="s", step_index=0, attempt=1),
        StepCompleted(execution_id="r", seq=2, step_id="s", step_index=0, attempt=1, duration_ms=1),
        FlowCompleted(execution_id="r", seq=3, run_id="r"),
    ]
    cursor = NamedTail("/runs/r/trace/stream")
    cursor.opened()
    rows = [(event.seq, event.event_type, encode_event(event)) for event in events]
    assert list(cursor.feed(frames(rows))) == events
    assert cursor.ended
    assert cursor.named == 0


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
