"""Replaying a finished run's whole log over HTTP: to a raw client, and to ours."""

from collections.abc import Iterator
from contextlib import ExitStack

from bench.measuring import side_by_side, took_ms
from bench.raw import read_stream
from bench.rows import Goal, Row
from bench.shapes import decode_bare
from bench.stage import Stage
from runglass import Client

FRAME_END = b"\n\n"


def rows(stage: Stage) -> Iterator[Row]:
    data, address = stage.data, stage.server.address
    events = data.replayed_events
    target = f"/api/v1/flow-runs/{data.replayed}/trace/stream"
    with ExitStack() as stack:
        client = stack.enter_context(Client(data.key, base_url=stage.client_address))
        stream = _body(read_stream(address, target, data.key))
        if (found := stream.count(b"\ndata: ")) != events:
            raise ValueError(f"the stream of {events} events brought {found}")
        bare = stack.enter_context(stage.bare(stream=stream))

        def per_s(spent_ms: float) -> float:
            return events / spent_ms * 1000

        sides = side_by_side(
            {
                "raw": lambda: per_s(took_ms(lambda: read_stream(address, target, data.key))),
                "raw limit": lambda: per_s(took_ms(lambda: read_stream(bare.address, "/stream/stream", ""))),
                "ours": lambda: per_s(took_ms(lambda: _follow(client, data.replayed, events))),
                "limit": lambda: per_s(
                    took_ms(lambda: decode_bare([_body(read_stream(bare.address, "/stream/stream", ""))]))
                ),
            },
            rounds=stage.sizes.rounds,
        )
    yield Row(
        figure=f"replay {events:,} stored events to a raw client",
        unit="events/s",
        better="more",
        ours=sides["raw"],
        limit=sides["raw limit"],
        goal=Goal(at=400_000, of_limit=9),
    )
    yield Row(
        figure="the same through our client, into objects",
        unit="events/s",
        better="more",
        ours=sides["ours"],
        limit=sides["limit"],
        goal=Goal(at=250_000),
    )


def _follow(client: Client, run_id: str, events: int) -> None:
    seen = sum(1 for _ in client.run(run_id).live_trace())
    if seen != events:
        raise ValueError(f"{seen} of {events} events came")


def _body(answer: bytes) -> bytes:
    """The parts of a chunked answer, joined."""
    at = answer.index(b"\r\n\r\n") + 4
    parts = []
    while size := int(answer[at : (end := answer.index(b"\r\n", at))], 16):
        parts.append(answer[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)
