"""The same small thing again and again: keys, cancels, sessions, repeats."""

import asyncio
import secrets
import uuid
from typing import Any

from tests.prove.attacking.attack import LOOK, Call, Family
from tests.prove.attacking.field import Field
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("storms")

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
FAMILY.floods("nobody", 16, 300, WITHOUT_A_KEY)
RUNS: dict[str, Call] = {
    "cancel-storm": _cancelled,
    "callers-who-leave": lambda field, _: field.execute("hold", timeout_s=0.05),
}
FAMILY.floods("run", 8, 60, RUNS)
FAMILY.floods("run", 16, 150, {"idempotency-storm": _repeated})
FAMILY.floods("run", 2, 6, {"resume-storm": _resumed})
FAMILY.floods("admin", 8, 60, {"key-minting": _minted})


@FAMILY.attack("run")
async def session_storm(field: Field) -> None:
    """A session that grows by 100 runs a second, read whole 40 times a second."""
    target = f"/seq/sessions/{SESSION[0][1]}"
    await asyncio.gather(
        field.flood(lambda _: field.execute("copy", headers=SESSION), beside=8, per_s=100),
        field.flood(lambda _: field.call("GET", target), beside=8, per_s=40),
    )


@FAMILY.attack("read")
async def list_storm(field: Field) -> None:
    """Lists of 100 runs, 150 a second, by every page."""

    async def one(_: int) -> None:
        page = (await field.call("GET", "/flow-runs?limit=100")).json()
        if cursor := page.get("nextCursor"):
            await field.call("GET", f"/flow-runs?limit=100&cursor={cursor}")

    for _ in range(150):
        await field.job("copy", role="run")
    await field.flood(one, beside=8, per_s=150)
