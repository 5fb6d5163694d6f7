"""What a caller goes on seeing after it was shut out, and browsers that sign in without end.

Those of others must not be signed out by it. Keys made past the limit of a project's requests, and lines of a
caller's in the log, are in `tests/contract`.
"""

import asyncio
from collections.abc import Sequence

from tests.prove.attacking.attack import API, Family, Field
from tests.prove.attacking.http import head

LEAKS = Family("leaks")

STREAMS = 250
GONE_S = 2.5
"""Within which a revoked key's streams must end: a second, and room for a busy machine."""


@LEAKS.attack("admin", leaves_work=True)
async def streams_of_a_revoked_key(field: Field) -> None:
    made = (await field.call("POST", "/keys", {"role": "read"})).json()
    field.keys["made"] = str(made.get("key"))
    run_id = await field.job("hold")
    field.role = "made"
    streams = await field.streams(f"/flow-runs/{run_id}/trace/stream", STREAMS)
    await field.call("DELETE", f"/keys/{made.get('id')}", role="admin")
    # Without any stream the harness says that the attack broke.
    _, left = await asyncio.wait(
        [asyncio.create_task(stream.read_all()) for stream in streams], timeout=GONE_S
    )
    if left:
        field.complain(
            f"{len(left)} of {len(streams)} streams go on {GONE_S:g} s after their key was revoked"
        )


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
    me = await field.call("GET", "/viewer/me", role="nobody", headers=neighbours)
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
            await field.call("GET", f"/viewer/ticket/{number:043d}", role="nobody", below="")

    await field.flood(one, beside=16, per_s=400)
    _, answered = await field.raw(head("GET", asked.json()["path"], host=field.host), source=field.address[0])
    if not answered.get("location", "").startswith("/runs#proof="):
        field.complain(f"the neighbour's ticket leads to {answered.get('location')}")
