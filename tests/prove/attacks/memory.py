"""Results, snapshots and answers that are to fill the server's memory, or its disk."""

import asyncio

from tests.prove.attacking.attack import LOOK, Call, Family, Field, Steps, code, loop
from tests.prove.attacking.http import ATTACKER

FAMILY = Family("memory")

BIG = code("return {'text': 'x' * 15_000_000}")
ROWS = code("return {'rows': [{'a': n} for n in range(200_000)]}")
MB = code("return {'text': 'x' * 1_000_000}")
LARGE = {"message": "x" * 9_000_000}

LOOPS = {
    "loop-of-big-results": (loop(1000, BIG, beside=4), 1),
    "ten-loops-of-big-results": (loop(10_000, MB, beside=4), 10),
    "many-small-results": (loop(1000, ROWS, beside=4), 1),
}
FAMILY.each("run", lambda field, jobs: field.jobs(*jobs), LOOPS, leaves_work=True)


@FAMILY.attack("run", leaves_work=True)
async def big_outputs_handed_on(field: Field) -> None:
    """A flow of 60 steps, each of which hands on 10 MB, captured in full."""
    rest: Steps = [{"id": f"s{n}", "type": "passthrough"} for n in range(60)]
    await field.jobs([*code("return {'text': 'x' * 10_000_000}"), *rest], 6, capture="full")


@FAMILY.attack("run")
async def big_results_at_once(field: Field) -> None:
    slug = await field.publish("big", BIG)
    await field.flood(lambda _: field.execute(slug), beside=20, per_s=20)


@FAMILY.attack("run")
async def bodies_at_once(field: Field) -> None:
    """40 bodies of 9.9 MB at once, of small values."""
    body = b'{"message":"x","parameters":{"a":[' + b"[1]," * 2_400_000 + b"1]}}"
    await field.together(40, lambda _: field.execute("copy", body))


@FAMILY.attack("run")
async def large_result_read_often(field: Field) -> None:
    run_id = await field.job(await field.publish("big", BIG, capture="full"))
    await asyncio.sleep(0.5)
    targets = [
        f"/flow-runs/{run_id}/trace",
        f"/flow-runs/{run_id}/trace/stream",
        f"/seq/{ATTACKER}/big/jobs/{run_id}",
    ]
    await field.flood(lambda n: field.call("GET", targets[n % 3]), beside=10, per_s=60)


@FAMILY.attack("run", leaves_work=True)
async def inputs_of_runs_that_wait(field: Field) -> None:
    """Jobs of 7 MB of inputs each that only wait: they count as all the memory that there is."""
    slug = await field.publish("day", [{"id": "day", "type": "wait", "ms": 86_400_000}])
    body = {"parameters": {"text": "x" * 7_000_000}}
    await field.flood(lambda _: field.job(slug, body), beside=2, per_s=20)


@FAMILY.attack("run", leaves_work=True, settings={"RUNGLASS_MAX_CONCURRENT_RUNS_PER_PROJECT": "1"})
async def large_calls_in_line(field: Field) -> None:
    """Calls of 9 MB that wait for the only place of their project, and whose callers leave."""
    await field.job("hold")
    await field.flood(lambda _: field.execute("answer", LARGE, timeout_s=0.5), beside=8, per_s=20)


TEMPLATES = {"template-of-16-mb": lambda field, _: field.override({"prompt": "{{ 'x' * 4000000 }}"})}
FAMILY.floods("run", 10, 20, TEMPLATES)
PAUSED = {"paused-with-much": lambda field, _: field.execute("answer", {**LARGE, "tools": [LOOK]})}
FAMILY.floods("run", 4, 10, PAUSED)
AGAIN: dict[str, Call] = {
    "large-repeats-of-a-call-that-goes-on": lambda field, _: field.execute(
        "hold", LARGE, headers=[("Idempotency-Key", "again")], timeout_s=0.5
    )
}
FAMILY.floods("run", 8, 20, AGAIN, leaves_work=True)
