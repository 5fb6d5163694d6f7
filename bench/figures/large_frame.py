"""One very large event in small chunks: the time must grow with its size, not with its square."""

from collections.abc import Iterator
from statistics import median

from bench.figures.decode_events import PEER, decode
from bench.measuring import Side, side_by_side, took_ms
from bench.rows import Goal, Row
from bench.samples import large_frame_chunks
from bench.shapes import decode_bare
from bench.stage import Stage

CHUNK_BYTES = 16 * 1024


def rows(stage: Stage) -> Iterator[Row]:
    size = stage.sizes.frame_bytes
    chunks = large_frame_chunks(size, chunk_bytes=CHUNK_BYTES)
    fourfold = large_frame_chunks(4 * size, chunk_bytes=CHUNK_BYTES)
    sides: dict[str, Side] = {
        "ours": lambda: took_ms(lambda: decode(chunks)),
        "limit": lambda: took_ms(lambda: decode_bare(chunks)),
        "fourfold": lambda: took_ms(lambda: decode(fourfold)),
        "fourfold limit": lambda: took_ms(lambda: decode_bare(fourfold)),
    }
    with stage.new_folder() as folder, stage.peer("openai_stream", folder / "stream", CHUNK_BYTES) as peer:
        (folder / "stream").write_bytes(b"".join(chunks))
        if peer is not None:
            sides[PEER] = lambda: peer.ask()["ms"]
        found = side_by_side(sides, rounds=stage.sizes.rounds)
    yield Row(
        figure=f"one frame of {size / (1 << 20):g} MiB in chunks of 16 KiB",
        unit="ms",
        ours=found["ours"],
        limit=found["limit"],
        peers={PEER: found.get(PEER, ())},
        goal=Goal(at=60, of_limit=1.4),
    )
    yield Row(
        figure="one of four times the size, per byte",
        unit="x",
        ours=[spent / (4 * median(found["ours"])) for spent in found["fourfold"]],
        limit=[spent / (4 * median(found["limit"])) for spent in found["fourfold limit"]],
        goal=Goal(of_limit=1.2),
        note="copies of this size leave the caches of the machine, so the limit grows too",
    )
