"""Decoding a trace to objects: time for a 10,000-step one, memory for a longer one."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.children import child
from bench.measuring import Side, side_by_side, took_ms
from bench.rows import Goal, Row
from bench.samples import trace_bytes
from bench.shapes import BareTrace
from bench.stage import Stage
from runglass.log.trace import Trace

PEER = "pydantic"


def rows(stage: Stage) -> Iterator[Row]:
    yield _time(stage)
    yield _memory(stage)


def _time(stage: Stage) -> Row:
    steps = stage.sizes.trace_steps
    data = trace_bytes(steps)
    ours, bare = msgspec.json.Decoder(Trace), msgspec.json.Decoder(BareTrace)
    sides: dict[str, Side] = {
        "ours": lambda: took_ms(lambda: ours.decode(data)),
        "limit": lambda: took_ms(lambda: bare.decode(data)),
    }
    with stage.new_folder() as folder, stage.peer("pydantic_trace", _written(folder, data)) as peer:
        if peer is not None:
            sides[PEER] = lambda: peer.ask(measure="ms")["ms"]
        found = side_by_side(sides, rounds=stage.sizes.rounds)
    return Row(
        figure=f"decode a {steps:,}-step trace ({len(data) / 1e6:.1f} MB)",
        unit="ms",
        ours=found["ours"],
        limit=found["limit"],
        peers={PEER: found.get(PEER, ())},
        goal=Goal(at=15, of_limit=1.2, over_peer=10),
    )


def _memory(stage: Stage) -> Row:
    steps = stage.sizes.long_trace_steps
    with stage.new_folder() as folder:
        path = _written(folder, trace_bytes(steps))

        def ours(shape: str) -> float:
            with child("bench.workers.decode_memory", path, shape) as worker:
                return float(worker.ask()["mb"])

        def theirs() -> float:
            with ExitStack() as stack:
                worker = stack.enter_context(stage.peer("pydantic_trace", path))
                assert worker is not None
                return float(worker.ask(measure="mb")["mb"])

        sides: dict[str, Side] = {"ours": lambda: ours("trace"), "limit": lambda: ours("bare")}
        if stage.has_peers:
            sides[PEER] = theirs
        found = side_by_side(sides, rounds=stage.sizes.rounds, warm_ups=0)
    return Row(
        figure=f"the same, memory for {steps:,} steps",
        unit="MB",
        ours=found["ours"],
        limit=found["limit"],
        peers={PEER: found.get(PEER, ())},
        goal=Goal(over_peer=5),
        note="what decoding adds to a process that has read the bytes",
    )


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "trace.json"
    path.write_bytes(data)
    return path
