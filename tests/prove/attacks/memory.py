"""Results, snapshots and answers that are to fill the server's memory, or its disk."""

import asyncio
from typing import Any

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field

FAMILY = Family("memory")

BIG = "return {'text': 'x' * 15_000_000}"


def _big_loop(code: str, *, count: int, beside: int) -> list[dict[str, Any]]:
    step = {"id": "big", "type": "code", "code": code}
    return [
        {
            "id": "each",
            "type": "loop",
            "over": f"list(range({count}))",
            "max_concurrency": beside,
            "steps": [step],
        }
    ]


@FAMILY.attack("run", finding=5, leaves_work=True)
async def loop_of_big_results(field: Field) -> None:
    """A loop of results of 15 MB."""
    await field.execute(await field.publish("big", _big_loop(BIG, count=1000, beside=4)), way="jobs")


@FAMILY.attack("run", leaves_work=True)
async def ten_loops_of_big_results(field: Field) -> None:
    """Ten runs of it at once, whose parts are within the limit of one result."""
    slug = await field.publish("big", _big_loop("return {'text': 'x' * 1_000_000}", count=10_000, beside=4))
    await field.together(10, lambda _: field.execute(slug, way="jobs"))


@FAMILY.attack("run", leaves_work=True)
async def many_small_results(field: Field) -> None:
    """A result of a million small objects, kept as objects."""
    code = "return {'rows': [{'a': n} for n in range(200_000)]}"
    await field.execute(await field.publish("big", _big_loop(code, count=1000, beside=4)), way="jobs")


@FAMILY.attack("run")
async def big_results_at_once(field: Field) -> None:
    """Runs whose callers wait for a result of 15 MB, 20 at once."""
    slug = await field.publish("big", [{"id": "big", "type": "code", "code": BIG}])
    await field.flood(lambda _: field.execute(slug), beside=20, per_s=20)


@FAMILY.attack("run", leaves_work=True)
async def big_outputs_handed_on(field: Field) -> None:
    """A flow of 60 steps, each of which hands on 10 MB, captured in full."""
    first = {"id": "big", "type": "code", "code": "return {'text': 'x' * 10_000_000}"}
    rest = [{"id": f"s{n}", "type": "passthrough"} for n in range(60)]
    slug = await field.publish("big", [first, *rest], capture="full")
    await field.together(6, lambda _: field.execute(slug, way="jobs"))


@FAMILY.attack("run")
async def template_of_16_mb(field: Field) -> None:
    """Templates that make just under 16 MB, ten at once."""
    await field.flood(lambda _: field.override({"prompt": "{{ 'x' * 4000000 }}"}), beside=10, per_s=20)


@FAMILY.attack("run")
async def paused_with_much(field: Field) -> None:
    """Runs that pause for tools with 9 MB of inputs each, and are never taken up."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    body = {"message": "x" * 9_000_000, "tools": [tool]}
    await field.flood(lambda _: field.execute("answer", body), beside=4, per_s=10)


@FAMILY.attack("run")
async def bodies_at_once(field: Field) -> None:
    """40 bodies of 9.9 MB at once, of small values."""
    body = b'{"message":"x","parameters":{"a":[' + b"[1]," * 2_400_000 + b"1]}}"
    await field.together(40, lambda _: field.execute("copy", body))


@FAMILY.attack("run")
async def large_result_read_often(field: Field) -> None:
    """A trace of large snapshots, read as a trace, a stream and a job, ten at a time."""
    slug = await field.publish("big", [{"id": "big", "type": "code", "code": BIG}], capture="full")
    started = await field.execute(slug, way="jobs")
    run_id = started.json().get("executionId")
    await asyncio.sleep(0.5)
    targets = [
        f"/flow-runs/{run_id}/trace",
        f"/flow-runs/{run_id}/trace/stream",
        f"/seq/evil/room/big/jobs/{run_id}",
    ]
    await field.flood(lambda n: field.call("GET", targets[n % 3]), beside=10, per_s=60)


@FAMILY.attack("run", leaves_work=True)
async def inputs_of_runs_that_wait(field: Field) -> None:
    """Jobs of 7 MB of inputs each that only wait: they count as all the memory that there is."""
    slug = await field.publish("day", [{"id": "day", "type": "wait", "ms": 86_400_000}])
    body = {"parameters": {"text": "x" * 7_000_000}}
    await field.flood(lambda _: field.execute(slug, body, way="jobs"), beside=2, per_s=20)


@FAMILY.attack("run", leaves_work=True, settings={"RUNGLASS_MAX_CONCURRENT_RUNS_PER_PROJECT": "1"})
async def large_calls_in_line(field: Field) -> None:
    """Calls of 9 MB that wait for the only place of their project, and whose callers leave."""
    await field.execute("hold", way="jobs")
    body = {"message": "x" * 9_000_000}
    await field.flood(lambda _: field.execute("answer", body, timeout_s=0.5), beside=8, per_s=20)


@FAMILY.attack("run", leaves_work=True)
async def large_repeats_of_a_call_that_goes_on(field: Field) -> None:
    """Repeats of a call of 9 MB under its Idempotency-Key, while its run waits."""
    body = {"message": "x" * 9_000_000}
    key = [("Idempotency-Key", "again")]
    await field.flood(lambda _: field.execute("hold", body, headers=key, timeout_s=0.5), beside=8, per_s=20)
