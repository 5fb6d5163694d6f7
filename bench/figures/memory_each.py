"""What the server holds for each run that waits, and for each tail that follows one."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

from bench import flows
from bench.listed import make_listed
from bench.memory import tree_memory
from bench.raw import place, read_stream, request
from bench.rows import Row
from bench.stage import Stage, serve
from runglass import Client, Job


def rows(stage: Stage) -> Iterator[Row]:
    found = [_measured(stage) for _ in range(stage.sizes.rounds)]
    yield Row(
        figure=f"memory of the server for each run that goes on, of {stage.sizes.many_runs}",
        unit="kB",
        ours=[for_run for for_run, _ in found],
    )
    yield Row(
        figure=f"memory of the server for each tail, of {stage.sizes.many_tails}",
        unit="kB",
        ours=[for_tail for _, for_tail in found],
    )


def _measured(stage: Stage) -> tuple[float, float]:
    with ExitStack() as stack:
        listed = make_listed(stack.enter_context(stage.new_folder()), 1)
        server = stack.enter_context(serve(listed.folder))
        client = stack.enter_context(Client(listed.key, base_url=f"{server.address}/api/v1"))
        # The first ones pay for what all share: modules, threads, caches, and the files of the viewer, which
        # would else be made at some time meanwhile.
        first = _begin(client)
        read_stream(server.address, "/", listed.key)
        stack.enter_context(_following(server.address, listed.key, first))
        before = tree_memory(server.pid)
        for _ in range(stage.sizes.many_runs):
            _begin(client)
        with_runs = tree_memory(server.pid)
        for _ in range(stage.sizes.many_tails):
            stack.enter_context(_following(server.address, listed.key, first))
        with_tails = tree_memory(server.pid)
    return (
        (with_runs - before) / stage.sizes.many_runs / 1000,
        (with_tails - with_runs) / stage.sizes.many_tails / 1000,
    )


def _begin(client: Client) -> Job:
    return client.flow(f"{flows.ORG}/{flows.PROJECT}/wait").execute_async(version="draft")


def _following(address: str, key: str, job: Job) -> socket.socket:
    """A connection that has the beginning of the run's stream."""
    connection = socket.create_connection(place(address))
    connection.sendall(request(f"/api/v1/flow-runs/{job.execution_id}/trace/stream", key))
    received = b""
    while b"event: step_started" not in received:
        part = connection.recv(4096)
        if not part:
            raise ConnectionError(f"a tail was refused: {received!r}")
        received += part
    return connection
