"""The same small thing again and again: keys, cancels, sessions, repeats."""

import asyncio
import secrets
import uuid
from typing import Any

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("storms")


@FAMILY.attack("nobody")
async def unknown_keys(field: Field) -> None:
    """Another unknown key with each of 300 requests a second."""

    async def one(_: int) -> None:
        key = f"nk_live_{secrets.token_hex(4)}_{secrets.token_hex(32)}"
        await field.call("GET", "/flow-runs", headers=[("Authorization", f"Bearer {key}")])

    await field.flood(one, beside=16, per_s=300)


@FAMILY.attack("nobody")
async def malformed_keys(field: Field) -> None:
    """Keys that are none: long, binary, of other schemes."""
    values = (
        "Bearer " + "nk_" * 2500,
        "Basic " + "A" * 5000,
        "Bearer \xff\xfe\x01",
        "Bearer",
        "nk_live_x",
        " " * 4000,
    )
    await field.flood(
        lambda n: field.call("GET", "/flow-runs", headers=[("Authorization", values[n % 6])]),
        beside=16,
        per_s=300,
    )


@FAMILY.attack("run")
async def cancel_storm(field: Field) -> None:
    """Jobs that are cancelled at once, and again, 60 a second."""

    async def one(_: int) -> None:
        started = await field.execute("hold", way="jobs")
        target = f"/seq/{ATTACKER}/hold/runs/{started.json().get('executionId')}"
        for _ in range(3):
            await field.call("DELETE", target)

    await field.flood(one, beside=8, per_s=60)


@FAMILY.attack("run")
async def callers_who_leave(field: Field) -> None:
    """Callers of runs that wait, who hang up at once, 60 a second."""

    async def one(_: int) -> None:
        await field.execute("hold", timeout_s=0.05)

    await field.flood(one, beside=8, per_s=60)


@FAMILY.attack("run")
async def idempotency_storm(field: Field) -> None:
    """A new Idempotency-Key of 255 characters with each of 150 runs a second, and a hundred under one."""
    one_key = "k" * 255

    async def one(number: int) -> None:
        key = one_key if number % 3 == 0 else secrets.token_hex(127)
        await field.execute("copy", headers=[("Idempotency-Key", key)])

    await field.flood(one, beside=16, per_s=150)


@FAMILY.attack("run")
async def session_storm(field: Field) -> None:
    """A session that grows by 100 runs a second, read whole 40 times a second."""
    session = str(uuid.uuid4())

    async def run(_: int) -> None:
        await field.execute("copy", headers=[("X-Session-Id", session)])

    async def read(_: int) -> None:
        await field.call("GET", f"/seq/sessions/{session}")

    await asyncio.gather(field.flood(run, beside=8, per_s=100), field.flood(read, beside=8, per_s=40))


@FAMILY.attack("run")
async def resume_storm(field: Field) -> None:
    """A paused run, taken up by 20 callers at once, again and again."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

    async def one(_: int) -> None:
        asked = (await field.execute("answer", {"message": "x", "tools": [tool]})).json()
        results: list[dict[str, Any]] = [
            {"role": "tool", "toolCallId": call["id"], "content": "seen"}
            for call in asked.get("toolCalls", [])
        ]
        body = {"executionId": asked.get("executionId"), "toolCallMessages": results}
        await field.together(20, lambda _: field.execute("answer", body))

    await field.flood(one, beside=2, per_s=6)


@FAMILY.attack("admin")
async def key_minting(field: Field) -> None:
    """New keys, 60 a second, revoked at once."""

    async def one(_: int) -> None:
        made = await field.call("POST", "/keys", {"role": "read"})
        await field.call("DELETE", f"/keys/{made.json().get('id')}")

    await field.flood(one, beside=8, per_s=60)


@FAMILY.attack("read")
async def list_storm(field: Field) -> None:
    """Lists of 100 runs and flows, 150 a second, by every page."""

    async def one(_: int) -> None:
        page = (await field.call("GET", "/flow-runs?limit=100")).json()
        if cursor := page.get("nextCursor"):
            await field.call("GET", f"/flow-runs?limit=100&cursor={cursor}")

    for _ in range(150):
        await field.execute("copy", way="jobs", role="run")
    await field.flood(one, beside=8, per_s=150)


@FAMILY.attack("nobody")
async def open_documents(field: Field) -> None:
    """What needs no key: the schema and the API's description, 200 a second."""
    targets = ("/schemas/flow.json", "/openapi.json", "/docs", "/../../etc/passwd")
    await field.flood(lambda n: field.call("GET", targets[n % 4]), beside=16, per_s=200)


@FAMILY.attack("run")
async def other_tenants_flows(field: Field) -> None:
    """Guessed flows, runs and sessions of the neighbour: each answers 404, whatever is asked."""
    run_id = str(uuid.uuid4())
    targets = [
        ("POST", "/seq/acme/quiet/quiet/execute", {"message": "x"}),
        ("POST", "/seq/acme/quiet/none/execute", {"message": "x"}),
        ("GET", f"/seq/acme/quiet/quiet/runs/{run_id}/trace", None),
        ("GET", "/flows/acme/quiet/quiet", None),
        ("DELETE", f"/seq/acme/quiet/quiet/runs/{run_id}", None),
    ]

    async def one(number: int) -> None:
        method, target, body = targets[number % len(targets)]
        answer = await field.call(method, target, body)
        if answer.status not in (404, 429, 503):
            field.complain(f"{method} {target} gave {answer.status}: {answer.body[:100]!r}")

    await field.flood(one, beside=8, per_s=150)
