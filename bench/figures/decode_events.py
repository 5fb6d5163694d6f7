"""Decoding an event stream to objects, as it comes off the network."""

from collections.abc import Iterator

from bench.measuring import Side, side_by_side, took_ms
from bench.rows import Goal, Row
from bench.samples import stream_chunks
from bench.shapes import decode_bare
from bench.stage import Stage
from runglass.client.core.stream_cursor import TailCursor

PEER = "openai"


def rows(stage: Stage) -> Iterator[Row]:
    events = stage.sizes.stream_events
    chunks = stream_chunks(events)

    def per_s(spent_ms: float) -> float:
        return events / spent_ms * 1000

    sides: dict[str, Side] = {
        "ours": lambda: per_s(took_ms(lambda: decode(chunks))),
        "limit": lambda: per_s(took_ms(lambda: decode_bare(chunks))),
    }
    with stage.new_folder() as folder, stage.peer("openai_stream", folder / "stream", len(chunks[0])) as peer:
        (folder / "stream").write_bytes(b"".join(chunks))
        if peer is not None:
            sides[PEER] = lambda: per_s(peer.ask()["ms"])
        found = side_by_side(sides, rounds=stage.sizes.rounds)
    yield Row(
        figure=f"decode {events:,} stream events",
        unit="events/s",
        better="more",
        ours=found["ours"],
        limit=found["limit"],
        peers={PEER: found.get(PEER, ())},
        goal=Goal(at=500_000, of_limit=1.3),
        note="the peer is its own stream decoder with pydantic models",
    )


def decode(chunks: list[bytes]) -> int:
    """What our client makes of a stream: how many events came out of it."""
    cursor = TailCursor("/bench")
    cursor.opened()
    return sum(1 for chunk in chunks for _ in cursor.feed(chunk))
