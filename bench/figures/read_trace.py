"""Reading a whole trace over HTTP into objects, and what that costs the server in memory."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

import msgspec

from bench.measuring import Side, side_by_side, took_ms
from bench.memory import peak
from bench.raw import KeptConnection, read_stream, request
from bench.rows import Goal, Row
from bench.shapes import BareTrace
from bench.stage import Stage, serve
from runglass import Client
from runglass.config.settings import Settings

PEER = "phoenix"


def rows(stage: Stage) -> Iterator[Row]:
    with ExitStack() as stack:
        client = stack.enter_context(Client(stage.data.key, base_url=stage.client_address))
        yield _medium(stage, client)
        yield from _long(stage, client)
        yield _memory(stage)


def _medium(stage: Stage, client: Client) -> Row:
    steps, run_id = stage.sizes.trace_steps, stage.data.medium
    with ExitStack() as stack:
        body = msgspec.json.encode(client.run(run_id).trace())
        bare = stack.enter_context(stage.bare(trace=body))
        connection = KeptConnection(bare.address)
        stack.callback(connection.close)
        decode = msgspec.json.Decoder(BareTrace).decode
        wire = request("/trace", "")
        sides: dict[str, Side] = {
            "ours": lambda: took_ms(lambda: client.run(run_id).trace()),
            "limit": lambda: took_ms(lambda: decode(connection.get(wire))),
        }
        peer = stage.phoenix
        if peer is not None:
            trace_id = peer.ask(do="write", spans=steps)["trace_id"]
            sides[PEER] = lambda: peer.ask(do="read", trace_id=trace_id, spans=steps)["ms"]
        found = side_by_side(sides, rounds=stage.sizes.rounds)
    return Row(
        figure=f"read a {steps:,}-step trace over HTTP into objects ({len(body) / 1e6:.1f} MB)",
        unit="ms",
        ours=found["ours"],
        limit=found["limit"],
        peers={PEER: found.get(PEER, ())},
        goal=Goal(at=60, of_limit=2.2),
    )


def _long(stage: Stage, client: Client) -> Iterator[Row]:
    few, many = stage.sizes.trace_steps, stage.sizes.long_trace_steps
    found = side_by_side(
        {
            "few": lambda: took_ms(lambda: client.run(stage.data.medium).trace()),
            "many": lambda: took_ms(lambda: client.run(stage.data.long).trace()),
        },
        rounds=stage.sizes.rounds,
    )
    yield Row(figure=f"the same, {many:,} steps", unit="ms", ours=found["many"])
    per_step = median(found["few"]) / few
    yield Row(
        figure="the same, per step against the shorter one",
        unit="x",
        ours=[spent / many / per_step for spent in found["many"]],
        goal=Goal(at=1.2),
    )


def _memory(stage: Stage) -> Row:
    """Reads with a raw client, from a new server for each sample: one that has had its peak keeps it."""
    many, few = stage.sizes.long_trace_steps, stage.sizes.trace_steps
    with stage.new_folder() as folder:
        _copy(Settings(data=stage.data.folder).database, Settings(data=folder).database)

        def grown() -> float:
            with serve(folder) as server:
                peaks = []
                for run_id in (stage.data.medium, stage.data.long):
                    read_stream(server.address, f"/api/v1/flow-runs/{run_id}/trace", stage.data.key)
                    peaks.append(peak(server.pid))
            return (peaks[1] - peaks[0]) / 1e6

        found = side_by_side({"ours": grown}, rounds=stage.sizes.rounds, warm_ups=0)
    return Row(
        figure=f"memory that the server needs more for {many:,} steps than for {few:,}",
        unit="MB",
        ours=found["ours"],
        goal=Goal(at=2),
        note="peak of its resident memory; the shorter trace is read first",
    )


def _copy(source: Path, target: Path) -> None:
    """A consistent copy of a database that a server has open."""
    with closing(sqlite3.connect(source)) as opened, closing(sqlite3.connect(target)) as copied:
        opened.backup(copied)
