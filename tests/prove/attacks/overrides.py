"""Overrides and other values of a call that are large, many, or to be redacted."""

import asyncio
import uuid
from typing import Any

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field

FAMILY = Family("overrides")


@FAMILY.attack("admin", finding=2)
async def code_of_9_mb(field: Field) -> None:
    """9.6 MB of `code` for a code step."""
    slug = await field.publish("coded", [{"id": "work", "type": "code", "code": "return {}"}])
    body = {"blockOverrides": {"work": {"code": "a=1;" * 2_400_000}}}
    for role in ("run", "admin"):
        await field.execute(slug, body, role=role)


@FAMILY.attack("run", finding=2)
async def prompt_of_9_mb(field: Field) -> None:
    """9 MB of `prompt`, all of it templates."""
    prompt = "{{ message }}" * 700_000
    await field.flood(lambda _: field.override({"prompt": prompt}), beside=2, per_s=4)


async def _unknown_steps(field: Field, count: int) -> None:
    name = "a-step-with-a-long-name-that-is-like-the-others-"
    slug = await field.publish("long", [{"id": f"{name}{n}", "type": "passthrough"} for n in range(50)])
    overrides = {f"{name}x{number}": {"prompt": "x"} for number in range(count)}
    await field.execute(slug, {"blockOverrides": overrides})


@FAMILY.attack("run", finding=2)
async def unknown_steps_2000(field: Field) -> None:
    """2,000 step ids that the flow does not have, all close to the fifty that it has."""
    await _unknown_steps(field, 2000)


@FAMILY.attack("run", finding=2)
async def unknown_steps_20000(field: Field) -> None:
    """20,000 of them."""
    await _unknown_steps(field, 20_000)


@FAMILY.attack("run")
async def unknown_fields(field: Field) -> None:
    """20,000 fields that a step does not have, all close to `prompt`."""
    fields = {f"prompt{number}": "x" for number in range(20_000)}
    await field.flood(lambda _: field.override(fields), beside=2, per_s=4)


@FAMILY.attack("run")
async def misspelt_members(field: Field) -> None:
    """30,000 members of the body, all close to names that it may have."""
    body = {f"messag{number}": "x" for number in range(30_000)}
    await field.flood(lambda _: field.execute("answer", body), beside=2, per_s=4)


@FAMILY.attack("admin", finding=2)
async def redacting_tokens(field: Field) -> None:
    """200,000 values under `token` in a flow that redacts."""
    slug = await field.publish("redacts", [{"id": "copy", "type": "passthrough"}], capture="redacted")
    body = {"parameters": {"rows": [{"token": f"value-{number}"} for number in range(200_000)]}}
    await field.flood(lambda _: field.execute(slug, body), beside=2, per_s=4)


@FAMILY.attack("admin")
async def redacting_text(field: Field) -> None:
    """9 MB of text that nearly has secrets in it everywhere."""
    slug = await field.publish("redacts", [{"id": "copy", "type": "passthrough"}], capture="redacted")
    text = "password= Bearer eyJ sk- AKIA ghp_ -----BEGIN " * 200_000
    await field.flood(lambda _: field.execute(slug, {"parameters": {"text": text}}), beside=2, per_s=4)


@FAMILY.attack("admin", finding=2)
async def large_session(field: Field) -> None:
    """A session of large snapshots, read whole again and again while it grows."""
    slug = await field.publish("kept", [{"id": "copy", "type": "passthrough"}], capture="full")
    session = str(uuid.uuid4())
    body = {"parameters": {"text": "x" * 250_000}}
    headers = [("X-Session-Id", session)]

    async def grow(_: int) -> None:
        await field.execute(slug, body, headers=headers)

    async def read(_: int) -> None:
        await field.call("GET", f"/seq/sessions/{session}")

    await asyncio.gather(field.flood(grow, beside=4, per_s=60), field.flood(read, beside=4, per_s=20))


@FAMILY.attack("admin")
async def many_steps_overridden(field: Field) -> None:
    """A flow of 5,000 steps, each with an override."""
    steps: list[dict[str, Any]] = [{"id": f"s{number}", "type": "passthrough"} for number in range(5000)]
    slug = await field.publish("long", steps)
    overrides = {f"s{number}": {"input": {"a": "{{ 1 }}"}} for number in range(5000)}
    await field.flood(lambda _: field.execute(slug, {"blockOverrides": overrides}), beside=2, per_s=2)


@FAMILY.attack("run")
async def settings_deep(field: Field) -> None:
    """`settings` with 100,000 unknown names, and with values 90 levels deep."""
    deep: Any = 1
    for _ in range(90):
        deep = {"x": deep}
    settings = {"extra_body": deep, **{f"temperatur{number}": 1 for number in range(100_000)}}
    await field.flood(lambda _: field.override({"settings": settings}), beside=2, per_s=4)
