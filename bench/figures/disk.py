"""What a step takes on disk with its events, in a run that keeps no snapshots."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench import flows
from bench.figures.steps_alone import PEERS
from bench.rows import Goal, Row
from bench.stage import Stage
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime


def rows(stage: Stage) -> Iterator[Row]:
    steps = stage.sizes.trace_steps
    peers: dict[str, list[float]] = {name: [] for name in PEERS}
    with stage.new_folder() as folder:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            before, _ = runner.run(_filled(folder / "empty", 0))
            after, least = runner.run(_filled(folder / "full", steps))
        for name in PEERS:
            with stage.peer(f"{name}_steps", folder / name, "NORMAL") as peer:
                if peer is not None:
                    peers[name] = [peer.ask(steps=stage.sizes.steps_alone)["bytes_per_step"]]
    yield Row(
        figure="disk per step, metadata only, with its events",
        unit="B",
        ours=[(after - before) / steps],
        peers=peers,
        limit=[least / steps],
        goal=Goal(at=1200, of_limit=3),
        note="sizes do not vary, so they are taken once; the limit is the step's entry in the trace",
    )


async def _filled(folder: Path, steps: int) -> tuple[int, int]:
    """Size of a database with one run of so many steps, and of the run's steps as JSON."""
    settings = Settings(data=folder, synchronous="NORMAL")
    least = 0
    async with open_runtime(settings) as runtime:
        project = await flows.push(runtime, flows.LOOP)
        if steps:
            run = await runtime.store.run(await flows.run(runtime, project, "loop", flows.loop_of(steps)))
            assert run is not None
            least = sum(len(step.data) for step in await runtime.store.steps(run.no))
    # Closing the last connection has moved the write-ahead log into the file.
    return settings.database.stat().st_size, least
