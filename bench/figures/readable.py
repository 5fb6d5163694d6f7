"""How long after a write was acknowledged it can be read: by the very next request, or later."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench import flows
from bench.measuring import Side, side_by_side
from bench.rows import Goal, Row
from bench.stage import Stage
from runglass import Client, StepCompleted, StepTrace

PEER = "phoenix"


def rows(stage: Stage) -> Iterator[Row]:
    steps = stage.sizes.written_steps
    with ExitStack() as stack:
        client = stack.enter_context(Client(stage.data.key, base_url=stage.client_address))
        peer = stage.phoenix
        sides: dict[str, Side] = {"ours": lambda: _late_s(client, steps)}
        if peer is not None:
            sides[PEER] = lambda: peer.ask(do="write", spans=steps)["s"]
        found = side_by_side(sides, rounds=stage.sizes.rounds, warm_ups=0)
        live = side_by_side(
            {"ours": lambda: float(_missed(client, steps))}, rounds=stage.sizes.rounds, warm_ups=0
        )
    yield Row(
        figure=f"all of {steps:,} steps can be read, after the last was acknowledged",
        unit="s",
        ours=found["ours"],
        peers={PEER: found.get(PEER, ())},
        goal=Goal(at=0),
        note="0: the first read has them all",
    )
    yield Row(
        figure="steps that a live tail has and the next request has not",
        unit="steps",
        ours=live["ours"],
        goal=Goal(at=0),
    )


def _late_s(client: Client, steps: int) -> float:
    """Seconds from the answer to a run until a read that has all its steps begins."""
    done = client.flow(f"{flows.ORG}/{flows.PROJECT}/loop").execute(
        parameters=flows.loop_of(steps).parameters, version="draft"
    )
    run = client.run(done.execution_id)
    answered_s = time.perf_counter()
    asked_s = answered_s
    while _completed(run.trace().steps) < steps:
        asked_s = time.perf_counter()
    return asked_s - answered_s


def _missed(client: Client, steps: int) -> int:
    """How many steps were seen to end in a live tail and not in a step trace that was asked for then."""
    job = client.flow(f"{flows.ORG}/{flows.PROJECT}/loop").execute_async(
        parameters=flows.loop_of(steps).parameters, version="draft"
    )
    run = client.run(job.execution_id)
    missed = 0
    for event in run.live_trace():
        if isinstance(event, StepCompleted):
            seen = run.step_trace(event.step_id, loop_index=event.loop_index)
            missed += seen.status != "completed"
    return missed


def _completed(steps: list[StepTrace]) -> int:
    return sum(step.status == "completed" for step in steps)
