"""Bodies that are JSON, or nearly: depth, size, numbers, keys, escapes."""

import functools
from collections.abc import Callable

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import Field
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("bodies")

TEN_MB = 9_900_000


def _parameters(inner: str) -> bytes:
    return f'{{"message":"x","parameters":{inner}}}'.encode()


BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "brackets": ("10 MB of [", lambda: b"[" * TEN_MB),
    "small-objects": (
        "a million objects of one member",
        lambda: _parameters('{"a":[' + '{"b":1},' * 1_000_000 + "1]}"),
    ),
    "huge-integer": (
        "an integer of nine million digits",
        lambda: _parameters('{"a":' + "9" * 9_000_000 + "}"),
    ),
    "huge-exponents": (
        "numbers like 1e999999999, a million of them",
        lambda: _parameters('{"a":[' + "1e999999999," * 700_000 + "1]}"),
    ),
    "duplicate-keys": (
        "the same key a million times",
        lambda: _parameters("{" + '"a":1,' * 1_000_000 + '"a":1}'),
    ),
    "many-keys": (
        "600,000 keys that differ in their last digits",
        lambda: _parameters("{" + ",".join(f'"k{number:07}":1' for number in range(600_000)) + "}"),
    ),
    "most-keys": (
        "as many different keys as are taken",
        lambda: _parameters("{" + ",".join(f'"k{number:07}":1' for number in range(195_000)) + "}"),
    ),
    "most-values": (
        "as many small values as are taken",
        lambda: _parameters('{"a":[' + "{}," * 990_000 + "1]}"),
    ),
    "great-exponents": (
        "1e300, which takes a hundred times as long to be read as 1, 1.4 million times",
        lambda: _parameters('{"a":[' + "1e300," * 1_400_000 + "1]}"),
    ),
    "most-great-exponents": (
        "the same as often as it is taken",
        lambda: _parameters('{"a":[' + "4.9e-324," * 5_700 + "1]}" + " " * 300_000),
    ),
    "halfway-numbers": (
        "numbers halfway between two that can be told apart, as many as are taken",
        lambda: _parameters('{"a":[' + "9007199254740993.5," * 150_000 + "1]}"),
    ),
    "long-fractions": (
        "fractions of 22 digits with exponents of two, as many as are taken",
        lambda: _parameters('{"a":[' + "1000002.0912345678901234567891e29," * 290_000 + "1]}"),
    ),
    "long-numbers": (
        "20,000 numbers of 499 digits",
        lambda: _parameters('{"a":[' + ("9" * 499 + ",") * 19_800 + "1]}"),
    ),
    "escapes": ("a text of a million escapes", lambda: _parameters('{"a":"' + "\\u00e9" * 1_600_000 + '"}')),
    "lone-surrogates": (
        "a text of a million halves of surrogate pairs",
        lambda: _parameters('{"a":"' + "\\ud800" * 1_600_000 + '"}'),
    ),
    "bad-utf8": ("10 MB that is no UTF-8", lambda: b'{"message":"' + b"\xff\xfe" * 4_900_000 + b'"}'),
    "deep-parameters": (
        "parameters 99 levels deep, 1,000 times",
        lambda: _parameters('{"a":[' + ",".join(["[" * 90 + "]" * 90] * 1000) + "]}"),
    ),
}


async def _sent(field: Field, make: Callable[[], bytes]) -> None:
    body = make()
    await field.flood(lambda _: field.execute("copy", body), beside=3, per_s=6)


for name, (about, make_body) in BODIES.items():
    FAMILY.add(name, about, functools.partial(_sent, make=make_body), role="run")


MEDIUM = _parameters('{"a":[' + "[]," * 84_000 + "1]}")
"""Just what is read on the event loop, and takes long for its size."""


@FAMILY.attack("run")
async def bodies_just_below_256_kb(field: Field) -> None:
    """87,000 times [] in 256 kB, which is refused after it was read."""
    await field.flood(lambda _: field.execute("copy", MEDIUM + b"x"), beside=8, per_s=100)


@FAMILY.attack("run")
async def repeats_just_below_256_kb(field: Field) -> None:
    """The same under one Idempotency-Key, again and again."""
    key = [("Idempotency-Key", "medium")]
    await field.flood(lambda _: field.execute("copy", MEDIUM, headers=key), beside=8, per_s=100)


@FAMILY.attack("admin")
async def managing_bodies(field: Field) -> None:
    """2.7 MB of [] in place of the role of a new key."""
    body = b'{"role":[' + b"[]," * 900_000 + b"1]}"
    await field.flood(lambda _: field.call("POST", "/keys", body), beside=6, per_s=20)


@FAMILY.attack("run")
async def large_messages(field: Field) -> None:
    """Messages of just under their limit, 20,000 turns of them."""
    messages = [{"role": "user", "content": "x"} for _ in range(20_000)]
    await field.flood(lambda _: field.execute("answer", {"messages": messages}), beside=3, per_s=10)


@FAMILY.attack("run")
async def message_of_10_mb(field: Field) -> None:
    """A message of 9.9 MB, through a template and echo, which streams it word by word."""
    body = {"message": "a " * (TEN_MB // 2)}
    await field.flood(lambda _: field.execute("answer", body), beside=3, per_s=6)


@FAMILY.attack("run")
async def attachment_bombs(field: Field) -> None:
    """100,000 attachments, and ten with an address of a megabyte."""
    many = [{"url": "https://a.example/x.png", "mimeType": "image/png"}] * 100_000
    long = [{"url": "https://a.example/" + "x" * 900_000, "mimeType": "image/png"}] * 10
    await field.flood(
        lambda number: field.execute("answer", {"message": "x", "attachments": (many, long)[number % 2]}),
        beside=3,
        per_s=8,
    )


@FAMILY.attack("run")
async def tool_bombs(field: Field) -> None:
    """64 tools with schemas of 100 kB each, and choices of tools that there are not."""
    deep = {f"p{number}": {"type": "string", "description": "x" * 60} for number in range(1000)}
    tools = [
        {
            "type": "function",
            "function": {"name": f"t{n}", "parameters": {"type": "object", "properties": deep}},
        }
        for n in range(64)
    ]
    await field.flood(
        lambda number: field.execute(
            "answer", {"message": "x", "tools": tools, "toolChoice": ("auto", "none-such")[number % 2]}
        ),
        beside=3,
        per_s=6,
    )


@FAMILY.attack("run")
async def tool_result_bombs(field: Field) -> None:
    """Results of tools of 9 MB, and 50,000 that nobody has asked for."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

    async def one(number: int) -> None:
        asked = (await field.execute("answer", {"message": "x", "tools": [tool]})).json()
        call_id = next((call["id"] for call in asked.get("toolCalls", [])), "none")
        contents = ["x" * 9_000_000] if number % 2 else ["x"] * 50_000
        results = [{"role": "tool", "toolCallId": call_id, "content": content} for content in contents]
        body = {"executionId": asked.get("executionId"), "toolCallMessages": results}
        await field.execute("answer", body)

    await field.flood(one, beside=3, per_s=8)


@FAMILY.attack("read")
async def list_queries(field: Field) -> None:
    """Hostile cursors, limits and filters of lists, and addresses of runs that are none."""
    targets = [
        "/flow-runs?limit=100&cursor=" + "A" * 7000,
        "/flow-runs?limit=99999999999999999999",
        "/flow-runs?status=" + "running," * 700,
        "/flow-runs?" + "&".join(f"flow_id={n}" for n in range(900)),
        "/flow-runs?cursor=%00%ff%27%22%3b--",
        "/flow-runs/" + "%2e%2e%2f" * 300 + "/trace",
        "/flow-runs/00000000-0000-0000-0000-000000000000/steps/"
        + "s" * 3000
        + "/trace?attempt="
        + "9" * 3000,
        f"/seq/{ATTACKER}/answer/runs/" + "0" * 5000 + "/trace",
        "/seq/sessions/" + "f" * 5000,
        "/" + "a/" * 3000,
    ]
    await field.flood(lambda number: field.call("GET", targets[number % len(targets)]), beside=8, per_s=200)
