"""What a caller may see, or make others see, that it must not: after it was shut out, too.

And browsers that sign in without end: those of others must not be signed out by it.
"""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress

from tests.prove.attacking.attack import API, SOURCE, Family, Field
from tests.prove.attacking.http import Connection, call, head

LEAKS = Family("leaks")

STREAMS = 250
GONE_S = 2.5
"""Within which a revoked key's streams must end: a second, and room for a busy machine."""
RATE = 300
LIMITED = {"RUNGLASS_RATE_LIMIT_PER_MINUTE": str(RATE), "RUNGLASS_PROJECT_RATE_LIMIT_PER_MINUTE": str(RATE)}


@LEAKS.attack("admin", leaves_work=True)
async def streams_of_a_revoked_key(field: Field) -> None:
    made = (await field.call("POST", "/keys", {"role": "read"})).json()
    field.keys["made"] = str(made.get("key"))
    run_id = await field.job("hold")
    field.role = "made"
    left = await field.streams(f"/flow-runs/{run_id}/trace/stream", STREAMS)
    begun = len(left)
    await field.call("DELETE", f"/keys/{made.get('id')}", role="admin")
    revoked_s = time.monotonic()
    while left and time.monotonic() - revoked_s < GONE_S:
        await asyncio.sleep(0.1)
        left = [stream for stream in left if not await _has_ended(stream)]
    if left or not begun:
        field.complain(f"{len(left)} of {begun} streams go on {GONE_S:g} s after their key was revoked")


async def _has_ended(stream: Connection) -> bool:
    try:
        async with asyncio.timeout(0.001):
            while await stream.reader.read(1 << 16):
                continue
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@LEAKS.attack("admin", settings=LIMITED)
async def minting_past_the_rate_limit(field: Field) -> None:
    """An admin who makes keys for its requests, under a limit of 300 a minute."""
    keys: list[str] = []
    good = 0

    async def one(_: int) -> None:
        nonlocal good
        if not keys:
            made = await field.call("POST", "/keys", {"role": "admin"})
            good += made.status == 201
            if made.status == 201:
                keys.extend([str(made.json()["key"])] * 30)
            return
        headers = [("Authorization", f"Bearer {keys.pop()}")]
        good += (await field.call("GET", "/flow-runs", headers=headers, role="nobody")).status == 200

    began_s = time.monotonic()
    with suppress(asyncio.CancelledError):
        await field.flood(one, beside=16, per_s=400)
    allowed = RATE + RATE / 60 * (time.monotonic() - began_s + 1)
    if good > allowed * 1.1:
        field.complain(f"{good} requests of one project under a limit of {RATE} a minute")


@LEAKS.attack("nobody", hurts_by_itself=True, only_on="sqlite")
async def forged_log_lines(field: Field) -> None:
    """Paths, ids and agents with line ends and escapes, while the store fails."""
    mark = "FORGED-LINE"
    text = f"%0a{mark}%0d%0a{mark}%1b[31m{mark}"
    hostile = [("X-Request-ID", f"a\x1b[31m{mark}"), ("User-Agent", f"\x1b]0;{mark}\x07")]

    async def one(number: int) -> None:
        method, role = (("GET", "read"), ("POST", "run"), ("DELETE", "admin"))[number % 3]
        headers = hostile if number % 2 else []
        await field.call(method, f"/flow-runs/{text}/{number}", {}, role=role, headers=headers, timeout_s=2.0)

    with closing(sqlite3.connect(field.data / "runglass.db", timeout=2, isolation_level=None)) as database:
        database.execute("ALTER TABLE api_key RENAME TO api_key_gone")
        try:
            await field.flood(one, beside=6, per_s=30)
        finally:
            database.execute("ALTER TABLE api_key_gone RENAME TO api_key")
    log = field.log.read_text(errors="replace")
    if "\x1b" in log or any(line.lstrip("\ufffd[31m").startswith(mark) for line in log.splitlines()):
        field.complain("a line or an escape of a caller's is in the log")


SIGN_INS = Family("sign-ins")

KEYS = 120

Headers = Sequence[tuple[str, str]]


async def _keys(field: Field) -> Sequence[Headers]:
    made = await field.together(KEYS, lambda _: field.call("POST", "/keys", {"role": "read"}, role="admin"))
    keys = [[("Authorization", f"Bearer {each.json()['key']}")] for each in made if each.status == 201]
    if not keys:
        field.complain("no key could be made")
    return keys


async def new_session(field: Field, headers: Headers) -> Headers:
    headers = [*headers, ("Content-Length", "0")]
    _, given = await field.raw(head("POST", f"{API}/viewer/session", host=field.host, headers=headers))
    return [
        ("Cookie", given["set-cookie"].partition(";")[0]),
        ("X-Viewer-Proof", given["x-viewer-proof"]),
        ("Sec-Fetch-Site", "same-origin"),
    ]


@SIGN_INS.attack("admin")
async def sessions_without_end(field: Field) -> None:
    """400 sign-ins a second, by 120 keys in turns and by their sessions, and by keys that are none."""
    neighbours = await new_session(field, field.headers("quiet-run"))
    ways: list[Headers] = [*await _keys(field), [("Authorization", "Bearer nk_live_x")]]
    ways += [await new_session(field, way) for way in ways[:20]]
    await field.flood(
        lambda number: field.call("POST", "/viewer/session", role="nobody", headers=ways[number % len(ways)]),
        beside=16,
        per_s=400,
    )
    me = await call(field.address, "GET", f"{API}/viewer/me", headers=neighbours)
    if me.status != 200:
        field.complain(f"the neighbour's browser is signed out: {me.status} {me.body[:100]!r}")


@SIGN_INS.attack("admin")
async def tickets_without_end(field: Field) -> None:
    """400 tickets a second, by 120 keys in turns, and guesses of others' tickets."""
    asked = await field.call(
        "POST", "/viewer/tickets", {"page": "/runs"}, role="quiet-run", source=field.address[0]
    )
    keys = await _keys(field)

    async def one(number: int) -> None:
        if number % 4:
            headers = keys[number % len(keys)]
            await field.call("POST", "/viewer/tickets", {"page": "/"}, role="nobody", headers=headers)
        else:
            await call(field.address, "GET", f"/viewer/ticket/{number:043d}", source=SOURCE)

    await field.flood(one, beside=16, per_s=400)
    _, answered = await field.raw(head("GET", asked.json()["path"], host=field.host), source=field.address[0])
    if not answered.get("location", "").startswith("/runs#proof="):
        field.complain(f"the neighbour's ticket leads to {answered.get('location')}")
