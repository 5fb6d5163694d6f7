"""Overrides and other values of a call that are large, many, or to be redacted."""

import asyncio
import uuid
from typing import Any

from tests.prove.attacking.attack import COPY, Call, Family, code
from tests.prove.attacking.field import Field
from tests.prove.attacks.schemas import nested

FAMILY = Family("overrides")


@FAMILY.attack("admin")
async def code_of_9_mb(field: Field) -> None:
    slug = await field.publish("coded", code("return {}"))
    body = {"blockOverrides": {"work": {"code": "a=1;" * 2_400_000}}}
    for role in ("run", "admin"):
        await field.execute(slug, body, role=role)


async def _unknown_steps(field: Field, count: int) -> None:
    """So many step ids that the flow does not have, all close to the fifty that it has."""
    name = "a-step-with-a-long-name-that-is-like-the-others-"
    slug = await field.publish("long", [{"id": f"{name}{n}", "type": "passthrough"} for n in range(50)])
    overrides = {f"{name}x{number}": {"prompt": "x"} for number in range(count)}
    await field.execute(slug, {"blockOverrides": overrides})


FAMILY.each("run", _unknown_steps, {"unknown-steps-2000": 2000, "unknown-steps-20000": 20_000})

SETTINGS = {"extra_body": nested(90), **{f"temperatur{number}": 1 for number in range(100_000)}}
CALLS: dict[str, Call] = {
    "prompt-of-9-mb": lambda field, _: field.override({"prompt": "{{ message }}" * 700_000}),
    "unknown-fields": lambda field, _: field.override({f"prompt{n}": "x" for n in range(20_000)}),
    "misspelt-members": lambda field, _: field.execute("answer", {f"messag{n}": "x" for n in range(30_000)}),
    "settings-deep": lambda field, _: field.override({"settings": SETTINGS}),
}
FAMILY.floods("run", 2, 4, CALLS)

NEARLY = "password= Bearer eyJ sk- AKIA ghp_ -----BEGIN " * 200_000
REDACTED: dict[str, dict[str, Any]] = {
    "redacting-tokens": {"rows": [{"token": f"value-{number}"} for number in range(200_000)]},
    "redacting-text": {"text": NEARLY},
}


async def _redacted(field: Field, parameters: dict[str, Any]) -> None:
    slug = await field.publish("redacts", COPY, capture="redacted")
    await field.flood(lambda _: field.execute(slug, {"parameters": parameters}), beside=2, per_s=4)


FAMILY.each("admin", _redacted, REDACTED)


@FAMILY.attack("admin")
async def large_session(field: Field) -> None:
    """A session of large snapshots, read whole again and again while it grows."""
    slug = await field.publish("kept", COPY, capture="full")
    session = str(uuid.uuid4())
    body, headers = {"parameters": {"text": "x" * 250_000}}, [("X-Session-Id", session)]
    await asyncio.gather(
        field.flood(lambda _: field.execute(slug, body, headers=headers), beside=4, per_s=60),
        field.flood(lambda _: field.call("GET", f"/seq/sessions/{session}"), beside=4, per_s=20),
    )


@FAMILY.attack("admin")
async def many_steps_overridden(field: Field) -> None:
    slug = await field.publish(
        "long", [{"id": f"s{number}", "type": "passthrough"} for number in range(5000)]
    )
    overrides = {f"s{number}": {"input": {"a": "{{ 1 }}"}} for number in range(5000)}
    await field.flood(lambda _: field.execute(slug, {"blockOverrides": overrides}), beside=2, per_s=2)
