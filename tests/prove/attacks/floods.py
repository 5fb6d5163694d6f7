"""One project that wants all places: iterations, waits, branches, retries and runs without number.

And the same small thing again and again: keys, cancels, sessions, repeats. And results, snapshots and answers
that are to fill the server's memory, or its disk.
"""

import asyncio
import secrets
import uuid
from typing import Any

from tests.prove.attacking.attack import COPY, LOOK, Call, Family, Field, Steps, code, loop
from tests.prove.attacking.http import ATTACKER

FLOODS = Family("floods")


def _nested(levels: int) -> Steps:
    steps = COPY
    for level in range(levels):
        steps = loop(100, steps, name=f"l{level}", beside=10)
    return steps


RETRY = {"max_attempts": 100, "initial_delay_ms": 0, "max_delay_ms": 0}
FAIL: Steps = [{"id": "fail", "type": "code", "code": "return 1", "retry": RETRY}]
SPIN: Steps = [{"id": "spin", "type": "code", "code": "while True:\n    pass", "on_error": "continue"}]
SAY: Steps = [{"id": "say", "type": "llm", "model": "echo", "prompt": "{{ 'word ' * 20000 }}"}]
NAP: Steps = [{"id": "wait", "type": "wait", "ms": 0}]
DAY: Steps = [{"id": "wait", "type": "wait", "ms": 86_400_000}]
BRANCHES = {f"b{n}": loop(1000, [{"id": f"c{n}", "type": "passthrough"}], name=f"l{n}") for n in range(2000)}

FLOWS: dict[str, Steps] = {
    "a-million-iterations": loop(1_000_000),
    "a-million-side-by-side": loop(1_000_000, beside=1000),
    "hundred-thousand-naps": loop(100_000, NAP, beside=100),
    "ten-loops-of-a-hundred": _nested(10),
    "two-thousand-branches": [{"id": "all", "type": "parallel", "branches": BRANCHES}],
    "retry-storm": loop(10_000, FAIL, beside=200),
    "slow-code-in-a-loop": loop(1000, SPIN, beside=1000),
    "echo-storm": loop(10_000, SAY, beside=100),
}


FLOODS.each("run", Field.jobs, FLOWS, leaves_work=True)
WAITS = {"twenty-thousand-waits": (loop(1000, DAY, beside=1000), 20)}
FLOODS.each("run", lambda field, jobs: field.jobs(*jobs), WAITS, leaves_work=True)
STORMS = {"job-storm": lambda field, _: field.job("copy"), "held-runs": lambda field, _: field.job("hold")}
FLOODS.floods("run", 16, 300, STORMS, leaves_work=True)
WAITED = {"execute-storm": lambda field, _: field.execute("answer", {"message": "x"})}
FLOODS.floods("run", 100, 200, WAITED)
GIVEN_UP = {"steps-given-up": lambda field, _: field.execute("walk", {"stepIndex": 0}, way="step")}
FLOODS.floods("run", 8, 100, GIVEN_UP, leaves_work=True)


STORMS_OF_CALLS = Family("storms")

MALFORMED = (
    "Bearer " + "nk_" * 2500,
    "Basic " + "A" * 5000,
    "Bearer \xff\xfe\x01",
    "Bearer",
    "nk_x",
    " " * 4000,
)
OPEN = ("/schemas/flow.json", "/openapi.json", "/docs", "/../../etc/passwd")
SESSION = [("X-Session-Id", str(uuid.uuid4()))]


def _asks(field: Field, key: str) -> Any:
    return field.call("GET", "/flow-runs", headers=[("Authorization", key)])


def _unknown() -> str:
    return f"Bearer nk_live_{secrets.token_hex(4)}_{secrets.token_hex(32)}"


async def _cancelled(field: Field, _: int) -> None:
    run_id = await field.job("hold")
    for _ in range(3):
        await field.call("DELETE", f"/seq/{ATTACKER}/hold/runs/{run_id}")


async def _repeated(field: Field, number: int) -> None:
    """Under a new Idempotency-Key of 254 characters, and each third time under the same one."""
    key = secrets.token_hex(127) if number % 3 else "k" * 255
    await field.execute("copy", headers=[("Idempotency-Key", key)])


async def _minted(field: Field, _: int) -> None:
    made = await field.call("POST", "/keys", {"role": "read"})
    await field.call("DELETE", f"/keys/{made.json().get('id')}")


async def _resumed(field: Field, _: int) -> None:
    """A paused run, taken up by 20 callers at once."""
    body = await field.resuming(["seen"])
    await field.together(20, lambda _: field.execute("answer", body))


WITHOUT_A_KEY: dict[str, Call] = {
    "unknown-keys": lambda field, _: _asks(field, _unknown()),
    "malformed-keys": lambda field, n: _asks(field, MALFORMED[n % 6]),
    "open-documents": lambda field, n: field.call("GET", OPEN[n % 4]),
}
STORMS_OF_CALLS.floods("nobody", 16, 300, WITHOUT_A_KEY)
RUNS: dict[str, Call] = {
    "cancel-storm": _cancelled,
    "callers-who-leave": lambda field, _: field.execute("hold", timeout_s=0.05),
}
STORMS_OF_CALLS.floods("run", 8, 60, RUNS)
STORMS_OF_CALLS.floods("run", 16, 150, {"idempotency-storm": _repeated})
STORMS_OF_CALLS.floods("run", 2, 6, {"resume-storm": _resumed})
STORMS_OF_CALLS.floods("admin", 8, 60, {"key-minting": _minted})


@STORMS_OF_CALLS.attack("run")
async def session_storm(field: Field) -> None:
    """A session that grows by 100 runs a second, read whole 40 times a second."""
    target = f"/seq/sessions/{SESSION[0][1]}"
    await asyncio.gather(
        field.flood(lambda _: field.execute("copy", headers=SESSION), beside=8, per_s=100),
        field.flood(lambda _: field.call("GET", target), beside=8, per_s=40),
    )


@STORMS_OF_CALLS.attack("read")
async def list_storm(field: Field) -> None:
    """Lists of 100 runs, 150 a second, by every page."""

    async def one(_: int) -> None:
        page = (await field.call("GET", "/flow-runs?limit=100")).json()
        if cursor := page.get("nextCursor"):
            await field.call("GET", f"/flow-runs?limit=100&cursor={cursor}")

    for _ in range(150):
        await field.job("copy", role="run")
    await field.flood(one, beside=8, per_s=150)


MEMORY = Family("memory")

BIG = code("return {'text': 'x' * 15_000_000}")
ROWS = code("return {'rows': [{'a': n} for n in range(200_000)]}")
MB = code("return {'text': 'x' * 1_000_000}")
LARGE = {"message": "x" * 9_000_000}

LOOPS = {
    "loop-of-big-results": (loop(1000, BIG, beside=4), 1),
    "ten-loops-of-big-results": (loop(10_000, MB, beside=4), 10),
    "many-small-results": (loop(1000, ROWS, beside=4), 1),
}
MEMORY.each("run", lambda field, jobs: field.jobs(*jobs), LOOPS, leaves_work=True)


@MEMORY.attack("run", leaves_work=True)
async def big_outputs_handed_on(field: Field) -> None:
    """A flow of 60 steps, each of which hands on 10 MB, captured in full."""
    rest: Steps = [{"id": f"s{n}", "type": "passthrough"} for n in range(60)]
    await field.jobs([*code("return {'text': 'x' * 10_000_000}"), *rest], 6, capture="full")


@MEMORY.attack("run")
async def big_results_at_once(field: Field) -> None:
    slug = await field.publish("big", BIG)
    await field.flood(lambda _: field.execute(slug), beside=20, per_s=20)


@MEMORY.attack("run")
async def bodies_at_once(field: Field) -> None:
    """40 bodies of 9.9 MB at once, of small values."""
    body = b'{"message":"x","parameters":{"a":[' + b"[1]," * 2_400_000 + b"1]}}"
    await field.together(40, lambda _: field.execute("copy", body))


@MEMORY.attack("run")
async def large_result_read_often(field: Field) -> None:
    run_id = await field.job(await field.publish("big", BIG, capture="full"))
    await asyncio.sleep(0.5)
    targets = [
        f"/flow-runs/{run_id}/trace",
        f"/flow-runs/{run_id}/trace/stream",
        f"/seq/{ATTACKER}/big/jobs/{run_id}",
    ]
    await field.flood(lambda n: field.call("GET", targets[n % 3]), beside=10, per_s=60)


@MEMORY.attack("run", leaves_work=True)
async def inputs_of_runs_that_wait(field: Field) -> None:
    """Jobs of 7 MB of inputs each that only wait: they count as all the memory that there is."""
    slug = await field.publish("day", [{"id": "day", "type": "wait", "ms": 86_400_000}])
    body = {"parameters": {"text": "x" * 7_000_000}}
    await field.flood(lambda _: field.job(slug, body), beside=2, per_s=20)


@MEMORY.attack("run", leaves_work=True, settings={"RUNGLASS_MAX_CONCURRENT_RUNS_PER_PROJECT": "1"})
async def large_calls_in_line(field: Field) -> None:
    """Calls of 9 MB that wait for the only place of their project, and whose callers leave."""
    await field.job("hold")
    await field.flood(lambda _: field.execute("answer", LARGE, timeout_s=0.5), beside=8, per_s=20)


TEMPLATES = {"template-of-16-mb": lambda field, _: field.override({"prompt": "{{ 'x' * 4000000 }}"})}
MEMORY.floods("run", 10, 20, TEMPLATES)
PAUSED = {"paused-with-much": lambda field, _: field.execute("answer", {**LARGE, "tools": [LOOK]})}
MEMORY.floods("run", 4, 10, PAUSED)
AGAIN: dict[str, Call] = {
    "large-repeats-of-a-call-that-goes-on": lambda field, _: field.execute(
        "hold", LARGE, headers=[("Idempotency-Key", "again")], timeout_s=0.5
    )
}
MEMORY.floods("run", 8, 20, AGAIN, leaves_work=True)
