"""Reading the trace of a small run: how long one reader waits, and how many are served in a second."""

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from bench.measuring import Side, side_by_side, took_ms
from bench.raw import KeptConnection, request, requests_per_s
from bench.rows import Goal, Row
from bench.stage import Stage
from runglass import Client

PEER = "phoenix"
CONNECTIONS = 8


def rows(stage: Stage) -> Iterator[Row]:
    steps, calls = stage.sizes.small_trace_steps, stage.sizes.calls
    target = f"/api/v1/flow-runs/{stage.data.small}/trace"
    address, key = stage.server.address, stage.data.key
    with ExitStack() as stack:
        ours = KeptConnection(address)
        stack.callback(ours.close)
        wire = request(target, key)
        bare = stack.enter_context(stage.bare(trace=ours.get(wire)))
        limit = KeptConnection(bare.address)
        stack.callback(limit.close)
        bare_wire = request("/trace", key)
        client = stack.enter_context(Client(key, base_url=stage.client_address))
        run = client.run(stage.data.small)
        least = stack.enter_context(Client(key, base_url=bare.address)).run(stage.data.small)
        sides: dict[str, Side] = {
            "ours": lambda: median([took_ms(lambda: ours.get(wire)) for _ in range(calls)]),
            "limit": lambda: median([took_ms(lambda: limit.get(bare_wire)) for _ in range(calls)]),
            "client": lambda: median([took_ms(run.trace) for _ in range(calls)]),
            "client limit": lambda: median([took_ms(least.trace) for _ in range(calls)]),
        }
        peer = stage.phoenix
        if peer is not None:
            trace_id = peer.ask(do="write", spans=steps)["trace_id"]
            sides[PEER] = lambda: median(
                [
                    peer.ask(do="read", trace_id=trace_id, spans=steps)["ms"]
                    for _ in range(max(1, calls // 20))
                ]
            )
        found = side_by_side(sides, rounds=stage.sizes.rounds)
        served = side_by_side(
            {
                "ours": lambda: _served(stage, address, target),
                "limit": lambda: _served(stage, bare.address, "/trace"),
            },
            rounds=stage.sizes.rounds,
        )
    peers = {PEER: found.get(PEER, ())}
    yield Row(
        figure=f"read a {steps}-step trace, one request after the other, raw client",
        unit="ms",
        ours=found["ours"],
        limit=found["limit"],
        peers=peers,
        goal=Goal(at=1.2, of_limit=2.9),
    )
    yield Row(
        figure="the same with our client, into objects",
        unit="ms",
        ours=found["client"],
        limit=found["client limit"],
        peers=peers,
        goal=Goal(at=1.2, of_limit=2.9),
        note="the limit is our client against bare uvicorn",
    )
    yield Row(
        figure=f"the same over {CONNECTIONS} connections at once, raw client",
        unit="requests/s",
        better="more",
        ours=served["ours"],
        limit=served["limit"],
        goal=Goal(at=5000),
    )


def _served(stage: Stage, address: str, target: str) -> float:
    return requests_per_s(
        address, target, stage.data.key, requests=stage.sizes.requests, connections=CONNECTIONS
    )
