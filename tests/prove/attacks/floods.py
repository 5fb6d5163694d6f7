"""One project that wants all places: iterations, waits, branches, retries and runs without number."""

from typing import Any

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field

FAMILY = Family("floods")

Steps = list[dict[str, Any]]
COPY: Steps = [{"id": "copy", "type": "passthrough"}]


def _loop(count: int, steps: Steps, *, name: str = "each", beside: int = 1) -> Steps:
    over = f"list(range({count}))"
    return [{"id": name, "type": "loop", "over": over, "max_concurrency": beside, "steps": steps}]


@FAMILY.attack("run", finding=4, leaves_work=True)
async def a_million_iterations(field: Field) -> None:
    """One request for a loop of 1,000,000."""
    await field.execute(await field.publish("flood", _loop(1_000_000, COPY)), way="jobs")


@FAMILY.attack("run", leaves_work=True)
async def a_million_side_by_side(field: Field) -> None:
    """The same, 1,000 iterations at a time."""
    await field.execute(await field.publish("flood", _loop(1_000_000, COPY, beside=1000)), way="jobs")


@FAMILY.attack("run", finding=4, leaves_work=True)
async def twenty_thousand_waits(field: Field) -> None:
    """20,000 waits of a day at once: twenty runs of 1,000 side by side."""
    wait: Steps = [{"id": "wait", "type": "wait", "ms": 86_400_000}]
    slug = await field.publish("flood", _loop(1000, wait, beside=1000))
    await field.together(20, lambda _: field.execute(slug, way="jobs"))


@FAMILY.attack("run", leaves_work=True)
async def hundred_thousand_naps(field: Field) -> None:
    """100,000 waits of no time."""
    nap: Steps = [{"id": "wait", "type": "wait", "ms": 0}]
    await field.execute(await field.publish("flood", _loop(100_000, nap, beside=100)), way="jobs")


@FAMILY.attack("run", leaves_work=True)
async def ten_loops_of_a_hundred(field: Field) -> None:
    """Loops of 100 in one another, ten levels: 10^20 iterations."""
    steps = COPY
    for level in range(10):
        steps = _loop(100, steps, name=f"l{level}", beside=10)
    await field.execute(await field.publish("flood", steps), way="jobs")


@FAMILY.attack("run", leaves_work=True)
async def two_thousand_branches(field: Field) -> None:
    """A parallel step of 2,000 branches, each of which loops."""
    branches = {
        f"b{n}": [
            {
                "id": f"l{n}",
                "type": "loop",
                "over": "list(range(1000))",
                "steps": [{"id": f"c{n}", "type": "passthrough"}],
            }
        ]
        for n in range(2000)
    }
    slug = await field.publish("flood", [{"id": "all", "type": "parallel", "branches": branches}])
    await field.execute(slug, way="jobs")


@FAMILY.attack("run", leaves_work=True)
async def retry_storm(field: Field) -> None:
    """200 iterations side by side of a step that fails and is tried 100 times without a pause."""
    retry = {"max_attempts": 100, "initial_delay_ms": 0, "max_delay_ms": 0}
    step: Steps = [{"id": "fail", "type": "code", "code": "return 1", "retry": retry}]
    await field.execute(await field.publish("flood", _loop(10_000, step, beside=200)), way="jobs")


@FAMILY.attack("run", leaves_work=True)
async def slow_code_in_a_loop(field: Field) -> None:
    """A thousand iterations side by side, each of code that takes its whole time."""
    step: Steps = [{"id": "spin", "type": "code", "code": "while True:\n    pass", "on_error": "continue"}]
    await field.execute(await field.publish("flood", _loop(1000, step, beside=1000)), way="jobs")


@FAMILY.attack("run", leaves_work=True)
async def job_storm(field: Field) -> None:
    """Small jobs as fast as they are taken, 300 a second."""
    await field.flood(lambda _: field.execute("copy", way="jobs"), beside=16, per_s=300)


@FAMILY.attack("run", leaves_work=True)
async def held_runs(field: Field) -> None:
    """A thousand runs that wait for ten minutes."""
    await field.flood(lambda _: field.execute("hold", way="jobs"), beside=16, per_s=300)


@FAMILY.attack("run")
async def execute_storm(field: Field) -> None:
    """Small runs, 100 at once, each of whose callers waits."""
    await field.flood(lambda _: field.execute("answer", {"message": "x"}), beside=100, per_s=200)


@FAMILY.attack("run", leaves_work=True)
async def echo_storm(field: Field) -> None:
    """100 iterations side by side that stream 100 kB of words each, through templates."""
    step: Steps = [{"id": "say", "type": "llm", "model": "echo", "prompt": "{{ 'word ' * 20000 }}"}]
    await field.execute(await field.publish("flood", _loop(10_000, step, beside=100)), way="jobs")


@FAMILY.attack("run", leaves_work=True)
async def steps_given_up(field: Field) -> None:
    """Step-throughs that are begun and never gone on with, 100 a second."""
    await field.flood(lambda _: field.execute("walk", {"stepIndex": 0}, way="step"), beside=8, per_s=100)
