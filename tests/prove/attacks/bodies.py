"""Bodies that are JSON, or nearly: depth, size, numbers, keys, escapes; overrides, large or many."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from tests.flows import nested
from tests.prove.attacking.attack import COPY, Call, Family, Field, code
from tests.prove.attacking.http import ATTACKER

IN_BODIES = Family("bodies")

TEN_MB = 9_900_000


def _parameters(inner: str) -> bytes:
    return f'{{"message":"x","parameters":{inner}}}'.encode()


def _list(item: str, count: int) -> bytes:
    return _parameters('{"a":[' + f"{item}," * count + "1]}")


def _keys(count: int) -> bytes:
    return _parameters("{" + ",".join(f'"k{number:07}":1' for number in range(count)) + "}")


BODIES: dict[str, Callable[[], bytes]] = {
    "brackets": lambda: b"[" * TEN_MB,
    "small-objects": lambda: _list('{"b":1}', 1_000_000),
    "huge-integer": lambda: _parameters('{"a":' + "9" * 9_000_000 + "}"),
    "huge-exponents": lambda: _list("1e999999999", 700_000),
    "duplicate-keys": lambda: _parameters("{" + '"a":1,' * 1_000_000 + '"a":1}'),
    "many-keys": lambda: _keys(600_000),
    "most-keys": lambda: _keys(195_000),
    "most-values": lambda: _list("{}", 990_000),
    # Takes a hundred times as long to be read as 1.
    "great-exponents": lambda: _list("1e300", 1_400_000),
    "most-great-exponents": lambda: _list("4.9e-324", 5_700) + b" " * 300_000,
    # Halfway between two numbers that can be told apart.
    "halfway-numbers": lambda: _list("9007199254740993.5", 150_000),
    "long-fractions": lambda: _list("1000002.0912345678901234567891e29", 290_000),
    "long-numbers": lambda: _list("9" * 499, 19_800),
    "escapes": lambda: _parameters('{"a":"' + "\\u00e9" * 1_600_000 + '"}'),
    "lone-surrogates": lambda: _parameters('{"a":"' + "\\ud800" * 1_600_000 + '"}'),
    "bad-utf8": lambda: b'{"message":"' + b"\xff\xfe" * 4_900_000 + b'"}',
    "deep-parameters": lambda: _list("[" * 90 + "]" * 90, 1000),
}
MEDIUM = _list("[]", 84_000)
"""Just what is read on the event loop, and takes long for its size."""
PROPERTIES = {f"p{number}": {"type": "string", "description": "x" * 60} for number in range(1000)}
MANY_TOOLS = [
    {
        "type": "function",
        "function": {"name": f"t{n}", "parameters": {"type": "object", "properties": PROPERTIES}},
    }
    for n in range(64)
]
TURN = {"role": "user", "content": "x"}
IMAGE = {"url": "https://a.example/x.png", "mimeType": "image/png"}
ATTACHMENTS = ([IMAGE] * 100_000, [{**IMAGE, "url": "https://a.example/" + "x" * 900_000}] * 10)
QUERIES = (
    "/flow-runs?limit=100&cursor=" + "A" * 7000,
    "/flow-runs?limit=99999999999999999999",
    "/flow-runs?status=" + "running," * 700,
    "/flow-runs?" + "&".join(f"flow_id={n}" for n in range(900)),
    "/flow-runs?cursor=%00%ff%27%22%3b--",
    "/flow-runs/" + "%2e%2e%2f" * 300 + "/trace",
    f"/flow-runs/00000000-0000-0000-0000-000000000000/steps/{'s' * 3000}/trace?attempt={'9' * 3000}",
    f"/seq/{ATTACKER}/answer/runs/" + "0" * 5000 + "/trace",
    "/seq/sessions/" + "f" * 5000,
    "/" + "a/" * 3000,
)


async def _sent(field: Field, make: Callable[[], bytes]) -> None:
    body = make()
    await field.flood(lambda _: field.execute("copy", body), beside=3, per_s=6)


async def _results(field: Field, number: int) -> None:
    """Results of a tool: one of 9 MB, or 50,000 that nobody has asked for."""
    contents = ["x" * 9_000_000] if number % 2 else ["x"] * 50_000
    await field.execute("answer", await field.resuming(contents))


IN_BODIES.each("run", _sent, BODIES)
AT_256_KB = {
    "bodies-just-below-256-kb": lambda field, _: field.execute("copy", MEDIUM + b"x"),
    "repeats-just-below-256-kb": lambda field, _: field.execute(
        "copy", MEDIUM, headers=[("Idempotency-Key", "medium")]
    ),
}
IN_BODIES.floods("run", 8, 100, AT_256_KB)
MANAGING = {
    "managing-bodies": lambda field, _: field.call("POST", "/keys", b'{"role":[' + b"[]," * 900_000 + b"1]}")
}
IN_BODIES.floods("admin", 6, 20, MANAGING)
CALLS = {
    "large-messages": lambda field, _: field.execute("answer", {"messages": [TURN] * 20_000}),
    "message-of-10-mb": lambda field, _: field.execute("answer", {"message": "a " * (TEN_MB // 2)}),
    "attachment-bombs": lambda field, n: field.execute(
        "answer", {"message": "x", "attachments": ATTACHMENTS[n % 2]}
    ),
    "tool-bombs": lambda field, n: field.execute(
        "answer", {"message": "x", "tools": MANY_TOOLS, "toolChoice": ("auto", "none-such")[n % 2]}
    ),
    "tool-result-bombs": _results,
}
IN_BODIES.floods("run", 3, 8, CALLS)
IN_BODIES.floods(
    "read", 8, 200, {"list-queries": lambda field, n: field.call("GET", QUERIES[n % len(QUERIES)])}
)


OVERRIDES = Family("overrides")


@OVERRIDES.attack("admin")
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


OVERRIDES.each("run", _unknown_steps, {"unknown-steps-2000": 2000, "unknown-steps-20000": 20_000})

SETTINGS = {"extra_body": nested(90), **{f"temperatur{number}": 1 for number in range(100_000)}}
OVERRIDING: dict[str, Call] = {
    "prompt-of-9-mb": lambda field, _: field.override({"prompt": "{{ message }}" * 700_000}),
    "unknown-fields": lambda field, _: field.override({f"prompt{n}": "x" for n in range(20_000)}),
    "misspelt-members": lambda field, _: field.execute("answer", {f"messag{n}": "x" for n in range(30_000)}),
    "settings-deep": lambda field, _: field.override({"settings": SETTINGS}),
}
OVERRIDES.floods("run", 2, 4, OVERRIDING)

NEARLY = "password= Bearer eyJ sk- AKIA ghp_ -----BEGIN " * 200_000
REDACTED: dict[str, dict[str, Any]] = {
    "redacting-tokens": {"rows": [{"token": f"value-{number}"} for number in range(200_000)]},
    "redacting-text": {"text": NEARLY},
}


async def _redacted(field: Field, parameters: dict[str, Any]) -> None:
    slug = await field.publish("redacts", COPY, capture="redacted")
    await field.flood(lambda _: field.execute(slug, {"parameters": parameters}), beside=2, per_s=4)


OVERRIDES.each("admin", _redacted, REDACTED)


@OVERRIDES.attack("admin")
async def large_session(field: Field) -> None:
    """A session of large snapshots, read whole again and again while it grows."""
    slug = await field.publish("kept", COPY, capture="full")
    session = str(uuid.uuid4())
    body, headers = {"parameters": {"text": "x" * 250_000}}, [("X-Session-Id", session)]
    await asyncio.gather(
        field.flood(lambda _: field.execute(slug, body, headers=headers), beside=4, per_s=60),
        field.flood(lambda _: field.call("GET", f"/seq/sessions/{session}"), beside=4, per_s=20),
    )


@OVERRIDES.attack("admin")
async def many_steps_overridden(field: Field) -> None:
    slug = await field.publish(
        "long", [{"id": f"s{number}", "type": "passthrough"} for number in range(5000)]
    )
    overrides = {f"s{number}": {"input": {"a": "{{ 1 }}"}} for number in range(5000)}
    await field.flood(lambda _: field.execute(slug, {"blockOverrides": overrides}), beside=2, per_s=2)
