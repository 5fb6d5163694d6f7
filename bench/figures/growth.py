"""What a step costs late in a very long run, against one near its beginning."""

import asyncio
from collections.abc import Iterator
from datetime import datetime

import msgspec
import uvloop

from bench import flows
from bench.rows import Goal, Row
from bench.stage import Stage
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.runtime.runtime import Runtime
from runglass.store.records import Project

EARLY = 100
WINDOW = 2000
"""Over so many steps a cost is taken: the log's times are whole milliseconds."""


class _Dated(msgspec.Struct):
    at: str


def rows(stage: Stage) -> Iterator[Row]:
    steps = stage.sizes.growth_steps
    ours = []
    with stage.new_folder() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for _ in range(stage.sizes.growth_rounds):
            ours.append(runner.run(_growth(Settings(data=folder, synchronous="NORMAL"), steps)))
    yield Row(
        figure=f"step {steps:,} of a run, against step {EARLY}",
        unit="x",
        ours=ours,
        goal=Goal(at=1.2),
    )


async def _growth(settings: Settings, steps: int) -> float:
    async with open_runtime(settings) as runtime:
        project = await flows.push(runtime, flows.LOOP)
        return await _ratio(runtime, project, steps)


async def _ratio(runtime: Runtime, project: Project, steps: int) -> float:
    run_id = await flows.run(runtime, project, "loop", flows.loop_of(steps))
    run = await runtime.store.run(run_id)
    assert run is not None
    window = min(WINDOW, steps // 4)

    async def begun(step: int) -> datetime:
        # The run's first event, then two of each step.
        events = await runtime.store.events(run.no, after=1 + 2 * step, limit_bytes=1)
        return datetime.fromisoformat(msgspec.json.decode(events[0][1], type=_Dated).at)

    early = await begun(EARLY + window) - await begun(EARLY)
    late = await begun(steps - 1) - await begun(steps - 1 - window)
    return late / early
