"""One project that wants all places: iterations, waits, branches, retries and runs without number.

And the same small thing again and again: keys, cancels, sessions, repeats.
"""

import asyncio
import secrets
import uuid
from typing import Any

from tests.prove.attacking.attack import COPY, LOOK, Call, Family, Field, Steps, loop
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
FLOODS.add(
    "twenty-thousand-waits",
    lambda field: field.jobs(loop(1000, DAY, beside=1000), 20),
    role="run",
    leaves_work=True,
)
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
    asked = (await field.execute("answer", {"message": "x", "tools": [LOOK]})).json()
    results = [
        {"role": "tool", "toolCallId": call["id"], "content": "seen"} for call in asked.get("toolCalls", [])
    ]
    body = {"executionId": asked.get("executionId"), "toolCallMessages": results}
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
