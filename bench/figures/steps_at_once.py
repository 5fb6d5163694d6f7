"""Traced, durable steps that do nothing, in many runs at once: how many are done in a second."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import uvloop

from bench import flows
from bench.figures.steps_alone import Synchronous, bare_database, commits_ms
from bench.measuring import Side, side_by_side
from bench.rows import Goal, Row
from bench.stage import Stage
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.runtime.runtime import Runtime
from runglass.store.records import Project

PEER = "dbos"
BATCH = 100
GOALS: dict[Synchronous, Goal] = {"NORMAL": Goal(at=8000, of_limit=20), "FULL": Goal(at=5000, of_limit=32)}


def rows(stage: Stage) -> Iterator[Row]:
    for synchronous, goal in GOALS.items():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for runs in stage.sizes.runs_at_once:
                yield _row(stage, runner, synchronous, goal, runs)


def _row(stage: Stage, runner: asyncio.Runner, synchronous: Synchronous, goal: Goal, runs: int) -> Row:
    each = max(1, stage.sizes.steps_at_once // runs)
    steps = each * runs
    with ExitStack() as stack:
        folder = stack.enter_context(stage.new_folder())
        opening = open_runtime(Settings(data=folder / "ours", synchronous=synchronous))
        runtime = runner.run(opening.__aenter__())
        stack.callback(lambda: runner.run(opening.__aexit__(None, None, None)))
        project = runner.run(flows.push(runtime, flows.chain(each)))
        bare = stack.enter_context(closing(bare_database(folder / "bare.db", synchronous)))
        peer = stack.enter_context(stage.peer(f"{PEER}_steps", folder / PEER, synchronous))
        sides: dict[str, Side] = {
            "ours": lambda: steps / runner.run(_run_s(runtime, project, runs)),
            "limit": lambda: steps / commits_ms(bare, steps, each=BATCH) * 1000,
        }
        if peer is not None:
            sides[PEER] = lambda: steps / peer.ask(steps=each, runs=runs)["ms"] * 1000
        found = side_by_side(sides, rounds=stage.sizes.rounds)
    return Row(
        figure=f"the same step in {runs} runs at once, {synchronous}",
        unit="steps/s",
        better="more",
        ours=found["ours"],
        limit=found["limit"],
        peers={PEER: found.get(PEER, ())},
        goal=goal,
        note="the limit writes one row for each step, 100 in a commit",
    )


async def _run_s(runtime: Runtime, project: Project, runs: int) -> float:
    began_s = time.perf_counter()
    await asyncio.gather(*[flows.run(runtime, project, "chain") for _ in range(runs)])
    return time.perf_counter() - began_s
