"""What a traced, durable step costs that does nothing, one after the other."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

import uvloop

from bench import flows
from bench.measuring import Side, side_by_side
from bench.rows import Goal, Row
from bench.stage import Stage
from runglass.config.settings import Settings
from runglass.runtime.composition import open_runtime
from runglass.runtime.runtime import Runtime
from runglass.store.records import Project

Synchronous = Literal["NORMAL", "FULL"]

PEERS = ("langgraph", "dbos")
GOALS: dict[Synchronous, Goal] = {"NORMAL": Goal(at=0.15, of_limit=7.9), "FULL": Goal(at=0.4, of_limit=2.1)}
ROW = b"x" * 600
"""About what a step's events and its place in the trace take."""


def rows(stage: Stage) -> Iterator[Row]:
    for synchronous, goal in GOALS.items():
        yield _row(stage, synchronous, goal)


def _row(stage: Stage, synchronous: Synchronous, goal: Goal) -> Row:
    steps = stage.sizes.steps_alone
    with ExitStack() as stack:
        folder = stack.enter_context(stage.new_folder())
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        opening = open_runtime(Settings(data=folder / "ours", synchronous=synchronous))
        runtime = runner.run(opening.__aenter__())
        stack.callback(lambda: runner.run(opening.__aexit__(None, None, None)))
        project = runner.run(flows.push(runtime, flows.chain(steps)))
        bare = stack.enter_context(closing(bare_database(folder / "bare.db", synchronous)))
        sides: dict[str, Side] = {
            "ours": lambda: runner.run(_run_ms(runtime, project)) / steps,
            "limit": lambda: commits_ms(bare, steps) / steps,
        }
        for name in PEERS:
            peer = stack.enter_context(stage.peer(f"{name}_steps", folder / name, synchronous))
            if peer is not None:
                sides[name] = lambda peer=peer: peer.ask(steps=steps)["ms"] / steps  # type: ignore[misc]
        found = side_by_side(sides, rounds=stage.sizes.rounds)
    return Row(
        figure=f"traced, durable no-op step, one after the other, {synchronous}",
        unit="ms",
        ours=found["ours"],
        limit=found["limit"],
        peers={name: found.get(name, ()) for name in PEERS},
        goal=goal,
    )


async def _run_ms(runtime: Runtime, project: Project) -> float:
    began_s = time.perf_counter()
    await flows.run(runtime, project, "chain")
    return (time.perf_counter() - began_s) * 1000


def bare_database(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """A table of rows with a number, with one connection and the settings that ours has."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE step (no INTEGER PRIMARY KEY, data BLOB NOT NULL)")
    return connection


def commits_ms(connection: sqlite3.Connection, rows: int, *, each: int = 1) -> float:
    """How long it takes to write so many rows, `each` of them in one transaction."""
    began_s = time.perf_counter()
    for _ in range(0, rows, each):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO step (data) VALUES (?)", [(ROW,)] * each)
        connection.execute("COMMIT")
    return (time.perf_counter() - began_s) * 1000
