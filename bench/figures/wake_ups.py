"""From an event's commit until very many tails over two servers have it, by each way to wake the servers."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

from bench.children import Child, Server, child, server
from bench.rows import Goal, Row
from bench.stage import Stage
from tests.nats_server import nats_server

NOTIFY, NATS, POLL = "NOTIFY", "NATS", "the poll alone"
LIMIT = "sending alone"
SERVERS = 2
ROUNDS = {NOTIFY: 3, NATS: 3, LIMIT: 3, POLL: 1}
"""Of the poll little is asked, and each of its rounds takes its time."""
LEAD_S = 0.3


class _Side(NamedTuple):
    """A process that records, and the servers, which share a store and are woken in one way."""

    committer: Child
    servers: list[Server]


def rows(stage: Stage) -> Iterator[Row]:
    with ExitStack() as stack:
        tails = stack.enter_context(child("bench.workers.tails"))
        buses = {NOTIFY: None, NATS: stack.enter_context(nats_server()).address, POLL: "memory://"}
        sides = {name: _side(stage, stack, bus) for name, bus in buses.items()}
        sending = stack.enter_context(child("bench.workers.fanout"))
        pacer = stack.enter_context(child("bench.workers.pacer"))
        for count, rate in stage.sizes.server_tails:
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in ROUNDS}
            for number in range(stage.sizes.rounds):
                for name, samples in found.items():
                    if number >= ROUNDS[name]:
                        continue
                    if name == LIMIT:
                        samples.append(_sent(stage, sending, pacer, tails, count, rate))
                    else:
                        samples.append(_followed(stage, sides[name], tails, count, rate))
            yield from _rows(count, rate, found)


def _rows(count: int, rate: int, found: dict[str, list[dict[str, Any]]]) -> Iterator[Row]:
    limit = found.pop(LIMIT)
    what = f"commit to {count:,} tails on {SERVERS} servers"
    for name, samples in found.items():
        for cut in ("p50", "p99"):
            yield Row(
                figure=f"{what}, {name}, {cut}",
                unit="ms",
                ours=[sample[cut] for sample in samples],
                limit=[sample[cut] for sample in limit],
                goal=Goal(at=30) if cut == "p99" and name != POLL else Goal(),
                note=f"one run, {rate} events/s, recorded by a third process, until the system has the bytes"
                " at a tail's socket; the limit is a process that sends ready bytes to as many tails",
            )


def _side(stage: Stage, stack: ExitStack, bus: str | None) -> _Side:
    database = stack.enter_context(stage.postgres.database())
    committer = stack.enter_context(child("bench.workers.committer", database, *([bus] if bus else [])))
    settings = {"RUNGLASS_STORE": database} | ({"RUNGLASS_BUS": bus} if bus else {})
    command = ("runglass", "serve", "--port", 0, "--log-level", "error")
    return _Side(
        committer, [stack.enter_context(server(*command, settings=settings)) for _ in range(SERVERS)]
    )


def _followed(stage: Stage, side: _Side, tails: Child, count: int, rate: int) -> dict[str, Any]:
    """How late the events of one run arrive at the tails."""
    events = stage.sizes.wake_ups
    run = side.committer.ask(do="begin")
    for number, each in enumerate(side.servers):
        tails.ask(
            address=each.address,
            key=run["key"],
            target=run["target"],
            tails=count // SERVERS,
            # With the one that ends the run.
            events=events + 1,
            more=number > 0,
        )
    tails.tell(rest_s=_rest_s(rate))
    recorded = side.committer.ask(do="record", events=events, rate=rate)
    tails.heard()
    return tails.ask(committed_s=recorded["committed_s"])


def _sent(stage: Stage, sending: Child, pacer: Child, tails: Child, count: int, rate: int) -> dict[str, Any]:
    """How late bytes arrive at as many tails that nobody has to record, store or read."""
    events = stage.sizes.wake_ups
    run = sending.ask(do="begin")
    tails.ask(
        address=run["address"],
        key=run["key"],
        target=run["target"],
        tails=count,
        events=events,
    )
    start_s = time.monotonic() + LEAD_S
    tails.tell(start_s=start_s, rate=rate, rest_s=_rest_s(rate))
    pacer.ask(port=run["port"], start_s=start_s, rate=rate, events=events)
    late = tails.heard()
    sending.ask(do="end")
    return late


def _rest_s(rate: int) -> float:
    """How long the tails leave what has come unread: so each event is sent and read before the next one.

    Readers have machines of their own; on these processors their reading would delay what is measured.
    """
    return 0.5 / rate
