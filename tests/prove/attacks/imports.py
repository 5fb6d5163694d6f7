"""Runs that an admin of the attacker's own project imports: endless, repeated, beside publishing."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import API, SOURCE, Field
from tests.prove.attacking.http import Answer, Connection, head
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("import")

IMPORT = "/flow-runs/import"
PIECE = 1 << 20
FILE_PIECES = 120
"""Of a megabyte each: below `import_limit_bytes`, and what took gigabytes once."""
_ids = itertools.count(1)


def _new_id() -> str:
    return f"01a216ae-3af3-75ae-86e9-{next(_ids):012}"


def _file(*, version: int = 1, **flow: Any) -> bytes:
    """A run of two events of a flow that is new."""
    run_id, flow_id, slug = _new_id(), _new_id(), f"imported-{next(_ids)}"
    source = {"slug": slug, "steps": [{"id": "a", "type": "passthrough"}], **flow}
    header = {
        "format": "runglass-run",
        "formatVersion": 1,
        "runId": run_id,
        "version": version,
        "capture": "full",
        "triggerType": "api",
        "flow": {"id": flow_id, "slug": source["slug"], "source": source},
    }
    common = {"executionId": run_id, "at": "2026-01-01T00:00:00.000Z", "runId": run_id}
    started = {"flowId": flow_id, "stepCount": 1, "triggerType": "api", "version": version}
    events = [
        {"eventType": "run_started", **common, "seq": 1, **started},
        {"eventType": "flow_completed", **common, "seq": 2},
    ]
    return b"\n".join(json.dumps(each, separators=(",", ":")).encode() for each in (header, *events))


HEADER = _file().split(b"\n")[0][:-1]
ENDLESS: dict[str, tuple[str, bytes, bytes]] = {
    "members-without-end": ('120 MB of {"":,"":,', b'{"":', b'"",":'),
    "members-of-a-document": ("120 MB of members that nobody knows", HEADER, b',"x":1'),
    "one-long-string": ("a string of 120 MB in a member that nobody knows", HEADER + b',"x":"', b"a"),
    "one-string-of-escapes": ("120 MB of escapes in such a member", HEADER + b',"x":"', b"\\n"),
    "one-long-name": ("a name of 120 MB", HEADER + b',"', b"n"),
    "one-long-event": ("an event that is a string of 120 MB", HEADER + b',"events":["', b"a"),
    "commas-for-events": ("120 million commas in place of events", HEADER + b',"events":[1', b","),
    "brackets-in-the-trace": ("120 MB of [] in the trace", HEADER + b',"trace":[', b"[]"),
    "deep-trace": ("120 million [ in the trace", HEADER + b',"trace":', b"["),
    "a-repeated-member": ("the flow again and again", HEADER, b',"flow":{}'),
    "blank-lines": ("120 MB of line breaks behind a header", HEADER + b"}\n", b"\n"),
    "one-long-line": ("a line of 120 MB behind a header", HEADER + b"}\n", b"a"),
}


def _pieces(before: bytes, unit: bytes) -> Iterator[bytes]:
    yield before
    piece = unit * (PIECE // len(unit))
    for _ in range(FILE_PIECES):
        yield piece


async def _send(field: Field, pieces: Iterator[bytes]) -> Answer:
    """The answer to a file that is sent in chunks, and no further once the server has refused it."""
    chunked = [*field.headers(), ("Transfer-Encoding", "chunked")]
    with suppress(OSError, EOFError):
        async with await Connection.open(field.address, source=SOURCE) as connection:
            await connection.send(head("POST", f"{API}{IMPORT}", host=connection.host, headers=chunked))
            with suppress(ConnectionError):
                for piece in pieces:
                    await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await connection.send(b"0\r\n\r\n")
            answer = await connection.answer()
            field.tally[answer.status] += 1
            return answer
    field.tally[0] += 1
    return Answer(0)


async def _sent(field: Field, before: bytes, unit: bytes) -> None:
    while field.left_s > 0:
        answer = await _send(field, _pieces(before, unit))
        if answer.status in (201, 500):
            field.complain(f"a file that is none was answered with {answer.status}")


for name, (about, begun, endless) in ENDLESS.items():
    FAMILY.add(name, about, functools.partial(_sent, before=begun, unit=endless), role="admin")


def _import(field: Field, make: Callable[[], bytes]) -> Any:
    return field.call("POST", IMPORT, make())


@FAMILY.attack("admin")
async def many_imports_at_once(field: Field) -> None:
    """Twelve files of 5 MB at a time, of which one is taken and the others wait for their turn."""
    large = json.dumps({"x": "y" * 5_000_000}).encode()[:-1] + b"," + _file().split(b"\n")[0][1:]
    await field.flood(lambda _: field.call("POST", IMPORT, large), beside=12, per_s=40)


@FAMILY.attack("admin")
async def imported_versions_called(field: Field) -> None:
    """Versions that came with runs, called in each way: what runs was never published here."""

    async def one(number: int) -> None:
        slug = f"called-{number}"
        await _import(field, lambda: _file(version=3, slug=slug))
        for way in ("execute", "jobs", "step"):
            answer = await field.execute(f"{slug}/v3", way=way)
            if answer.status != 404:
                field.complain(f"{way} of an imported version was answered with {answer.status}")
        answer = await field.call("PUT", f"/flows/{ATTACKER}/{slug}/production", {"version": 3})
        if answer.status != 404:
            field.complain(f"an imported version in production: {answer.status}")

    await field.flood(one, beside=1, per_s=20)


@FAMILY.attack("admin")
async def imports_beside_a_publish(field: Field) -> None:
    """Runs of the number that is published next, and of the last one that there can be."""

    async def one(number: int) -> None:
        slug = f"beside-{number}"
        first = _file(version=2**31 - 1, slug=slug)
        await field.call("POST", IMPORT, first)
        taken = first.split(b"\n")[0]
        flow_id = json.loads(taken)["flow"]["id"].encode()
        second = _file(version=1, slug=slug)
        second = second.replace(json.loads(second.split(b"\n")[0])["flow"]["id"].encode(), flow_id)
        published, _ = await field.together(
            2,
            lambda which: (
                field.call("POST", IMPORT, second)
                if which
                else field.call("POST", f"/flows/{ATTACKER}/{slug}/publish")
            ),
        )
        if published.status != 200 or published.json().get("version") not in (1, 2):
            field.complain(f"publishing beside an import: {published.status} {published.body[:80]!r}")
        again = await field.execute(slug)
        if again.status != 200:
            field.complain(f"what was published does not run: {again.status} {again.body[:80]!r}")

    await field.flood(one, beside=1, per_s=20)


@FAMILY.attack("admin")
async def nul_in_names(field: Field) -> None:
    """Names with a NUL, in a file with a run and in a flow that is pushed."""

    async def one(_: int) -> None:
        answers = [
            await _import(field, lambda: _file(name="a\0b")),
            await field.call("PUT", f"/flows/{ATTACKER}/nul", {"slug": "nul", "name": "a\0", "steps": []}),
        ]
        if any(answer.status != 422 for answer in answers):
            field.complain(f"a NUL in a name: {[answer.status for answer in answers]}")

    await field.flood(one, beside=1, per_s=40)
