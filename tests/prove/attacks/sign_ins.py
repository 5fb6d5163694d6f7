"""Browsers that sign in without end, by keys without end: those of others must not be signed out by it."""

from collections.abc import Sequence

from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import API, SOURCE, Field
from tests.prove.attacking.http import Connection, call, head

FAMILY = Family("sign-ins")

KEYS = 120

Headers = Sequence[tuple[str, str]]


async def _keys(field: Field) -> Sequence[Headers]:
    made = await field.together(KEYS, lambda _: field.call("POST", "/keys", {"role": "read"}, role="admin"))
    keys = [[("Authorization", f"Bearer {each.json()['key']}")] for each in made if each.status == 201]
    if not keys:
        field.complain("no key could be made")
    return keys


def _of_neighbour(field: Field) -> Headers:
    return [("Authorization", f"Bearer {field.seeded.neighbour_key}")]


async def new_session(field: Field, headers: Headers) -> Headers:
    async with await Connection.open(field.address, source=SOURCE) as connection:
        headers = [*headers, ("Content-Length", "0")]
        asked = head("POST", f"{API}/viewer/session", host=connection.host, headers=headers)
        await connection.send(asked)
        answered = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    given = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in answered.splitlines())
    }
    return [
        ("Cookie", given["set-cookie"].partition(";")[0]),
        ("X-Viewer-Proof", given["x-viewer-proof"]),
        ("Sec-Fetch-Site", "same-origin"),
    ]


@FAMILY.attack("admin")
async def sessions_without_end(field: Field) -> None:
    """400 sign-ins a second, by 120 keys in turns and by their sessions, and by keys that are none."""
    neighbours = await new_session(field, _of_neighbour(field))
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


@FAMILY.attack("admin")
async def tickets_without_end(field: Field) -> None:
    """400 tickets a second, by 120 keys in turns, and guesses of others' tickets."""
    asked = await call(
        field.address, "POST", f"{API}/viewer/tickets", b'{"page":"/runs"}', headers=_of_neighbour(field)
    )
    keys = await _keys(field)

    async def one(number: int) -> None:
        if number % 4:
            headers = keys[number % len(keys)]
            await field.call("POST", "/viewer/tickets", {"page": "/"}, role="nobody", headers=headers)
        else:
            await call(field.address, "GET", f"/viewer/ticket/{number:043d}", source=SOURCE)

    await field.flood(one, beside=16, per_s=400)
    async with await Connection.open(field.address) as connection:
        await connection.send(head("GET", asked.json()["path"], host=connection.host))
        _, answered = await connection.answer_head()
    if not answered.get("location", "").startswith("/runs#proof="):
        field.complain(f"the neighbour's ticket leads to {answered.get('location')}")
