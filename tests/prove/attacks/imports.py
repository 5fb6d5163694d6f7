"""Files without end that an admin of the attacker's own project sends as runs to be imported."""

from collections.abc import Iterator
from contextlib import suppress

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import API, SOURCE, Field
from tests.prove.attacking.http import Answer, Connection, head

FAMILY = Family("import")

IMPORT = "/flow-runs/import"
PIECE = 1 << 20
FILE_PIECES = 120
"""Of a megabyte each: below `import_limit_bytes`, and what took gigabytes once."""
HEADER = (
    b'{"format":"runglass-run","formatVersion":1,"runId":"01a216ae-3af3-75ae-86e9-000000000001","version":1,'
    b'"capture":"full","triggerType":"api","flow":{"id":"01a216ae-3af3-75ae-86e9-000000000002",'
    b'"slug":"imported","source":{"slug":"imported","steps":[{"id":"a","type":"passthrough"}]}}'
)
"""Of a run of a new flow, but for its last bracket."""
ENDLESS = {
    "members-without-end": (b'{"":', b'"",":'),
    "members-of-a-document": (HEADER, b',"x":1'),
    "one-long-string": (HEADER + b',"x":"', b"a"),
    "one-string-of-escapes": (HEADER + b',"x":"', b"\\n"),
    "one-long-name": (HEADER + b',"', b"n"),
    "one-long-event": (HEADER + b',"events":["', b"a"),
    "commas-for-events": (HEADER + b',"events":[1', b","),
    "brackets-in-the-trace": (HEADER + b',"trace":[', b"[]"),
    "deep-trace": (HEADER + b',"trace":', b"["),
    "a-repeated-member": (HEADER, b',"flow":{}'),
    "blank-lines": (HEADER + b"}\n", b"\n"),
    "one-long-line": (HEADER + b"}\n", b"a"),
}
LARGE = b'{"x":"' + b"y" * 5_000_000 + b'",' + HEADER[1:] + b"}"


def _pieces(before: bytes, unit: bytes) -> Iterator[bytes]:
    yield before
    piece = unit * (PIECE // len(unit))
    for _ in range(FILE_PIECES):
        yield piece


async def _send(field: Field, pieces: Iterator[bytes]) -> Answer:
    """The answer to a file that is sent in chunks, and no further once the server has refused it."""
    chunked = [*field.headers(), ("Transfer-Encoding", "chunked")]
    answer = Answer(0)
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


async def _sent(field: Field, endless: tuple[bytes, bytes]) -> None:
    while field.left_s > 0:
        answer = await _send(field, _pieces(*endless))
        if answer.status in (201, 500):
            field.complain(f"a file that is none was answered with {answer.status}")


FAMILY.each("admin", _sent, ENDLESS)
FAMILY.floods("admin", 12, 40, {"many-imports-at-once": lambda field, _: field.call("POST", IMPORT, LARGE)})
