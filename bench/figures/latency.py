"""From when an event is due until a tail has it: server, writer and readers have processes of their own."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from bench.children import Child, child
from bench.rows import Goal, Row
from bench.stage import Stage

LEAD_S = 0.3
SIDES = {"ours": "bench.workers.paced", "limit": "bench.workers.fanout"}


def rows(stage: Stage) -> Iterator[Row]:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(child(module)) for name, module in SIDES.items()}
        pacer = stack.enter_context(child("bench.workers.pacer"))
        tails = stack.enter_context(child("bench.workers.tails"))
        for count in stage.sizes.tails:
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
            for _ in range(stage.sizes.rounds):
                for name, server in servers.items():
                    found[name].append(_followed(stage, server, pacer, tails, count))
            yield from _rows(stage, count, found)


def _rows(stage: Stage, count: int, found: dict[str, list[dict[str, Any]]]) -> Iterator[Row]:
    what = f"{count} tail{'' if count == 1 else 's'}"
    yield Row(
        figure=f"from an event being due until {what} got it, {stage.sizes.tail_rate:,} events/s, p99",
        unit="ms",
        ours=[sample["p99"] for sample in found["ours"]],
        limit=[sample["p99"] for sample in found["limit"]],
        goal=Goal(at=10),
        note="the limit sends ready bytes and keeps nothing",
    )
    yield Row(
        figure="the same, p50",
        unit="ms",
        ours=[sample["p50"] for sample in found["ours"]],
        limit=[sample["p50"] for sample in found["limit"]],
    )


def _followed(stage: Stage, server: Child, pacer: Child, tails: Child, count: int) -> dict[str, Any]:
    """How late the events of one run arrive at so many tails."""
    events, rate = stage.sizes.tail_events, stage.sizes.tail_rate
    run = server.ask(do="begin")
    tails.ask(address=run["address"], key=run["key"], target=run["target"], tails=count, events=events)
    start_s = time.monotonic() + LEAD_S
    tails.tell(start_s=start_s, rate=rate)
    pacer.ask(port=run["port"], start_s=start_s, rate=rate, events=events)
    late = tails.heard()
    server.ask(do="end")
    return late
