"""What a caller may see, or make others see, that it must not: after it was shut out, too."""

import asyncio
import sqlite3
import time
from contextlib import closing, suppress

from tests.prove.attacking.attack import Family, until_over
from tests.prove.attacking.field import API, SOURCE, Field
from tests.prove.attacking.http import Answer, Connection, head
from tests.prove.attacking.places import ATTACKER

FAMILY = Family("leaks")

STREAMS = 250
GONE_S = 2.5
"""Within which a revoked key's streams must end: a second, and room for a busy machine."""
RATE = 300
LIMITED = {
    "RUNGLASS_RATE_LIMIT_PER_MINUTE": str(RATE),
    "RUNGLASS_PROJECT_RATE_LIMIT_PER_MINUTE": str(RATE),
}


@FAMILY.attack("admin", finding=7, leaves_work=True)
async def streams_of_a_revoked_key(field: Field) -> None:
    """250 streams of a key that is then revoked: all of them end."""
    made = (await field.call("POST", "/keys", {"role": "read"})).json()
    run_id = (await field.execute("hold", way="jobs")).json().get("executionId")
    headers = [("Authorization", f"Bearer {made.get('key')}"), ("Connection", "close")]
    request = head("GET", f"{API}/flow-runs/{run_id}/trace/stream", host="x", headers=headers)
    streams = await field.connect(STREAMS)
    begun = []

    async def begin(number: int) -> None:
        with suppress(OSError, EOFError):
            await streams[number].send(request)
            status, _ = await streams[number].answer_head()
            if status == 200:
                begun.append(streams[number])

    await field.together(len(streams), begin)
    await field.call("DELETE", f"/keys/{made.get('id')}")
    revoked_s = time.monotonic()
    left = begun
    while left and time.monotonic() - revoked_s < GONE_S:
        await asyncio.sleep(0.1)
        left = [stream for stream in left if not await _has_ended(stream)]
    if left:
        field.complain(f"{len(left)} of {len(begun)} streams go on {GONE_S:g} s after their key was revoked")
    if not begun:
        field.complain("no stream could be opened")


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


@FAMILY.attack("admin", finding=7, settings=LIMITED)
async def minting_past_the_rate_limit(field: Field) -> None:
    """An admin who makes a key for each of its requests, under a limit of 300 a minute."""
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
        answer = await field.call("GET", "/flow-runs", headers=headers, role="nobody")
        good += answer.status == 200

    began_s = time.monotonic()
    with suppress(asyncio.CancelledError):
        await field.flood(one, beside=16, per_s=400)
    allowed = RATE + RATE / 60 * (time.monotonic() - began_s + 1)
    if good > allowed * 1.1:
        field.complain(f"{good} requests of one project under a limit of {RATE} a minute")


@FAMILY.attack("read", finding=7)
async def result_under_off(field: Field) -> None:
    """A `read` key asks for the result of a job whose flow captures nothing."""
    word = "unseen-word"
    started = await field.execute("secret", {"message": word}, way="jobs", role="run")
    run_id = started.json().get("executionId")
    await asyncio.sleep(0.5)
    for target in (
        f"/seq/{ATTACKER}/secret/jobs/{run_id}",
        f"/flow-runs/{run_id}/trace",
        f"/flow-runs/{run_id}/trace/stream",
        f"/flow-runs/{run_id}/steps/answer/trace?attempt=all",
    ):
        answer = await field.call("GET", target)
        if word.encode() in answer.body:
            field.complain(f"a `read` key reads content under `off` at {target}")


@FAMILY.attack("nobody", finding=8, hurts_by_itself=True, only_on="sqlite")
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
    if "\x1b" in log:
        field.complain("an escape of a caller's is in the log")
    if any(line.lstrip("\ufffd[31m").startswith(mark) for line in log.splitlines()):
        field.complain("a line of a caller's is in the log")


@FAMILY.attack("read")
async def revoked_in_the_middle(field: Field) -> None:
    """A key that is revoked while it calls: nothing that it asks afterwards is answered."""
    made = (await field.call("POST", "/keys", {"role": "run"}, role="admin")).json()
    headers = [("Authorization", f"Bearer {made.get('key')}")]
    async with await Connection.open(field.address, source=SOURCE) as connection:
        before = await connection.ask("GET", f"{API}/flow-runs", headers=headers)
        await field.call("DELETE", f"/keys/{made.get('id')}", role="admin")
        try:
            after = await connection.ask("GET", f"{API}/flow-runs", headers=headers)
        except (OSError, EOFError):
            # To be cut off is as good as to be refused.
            after = Answer(401)
    if (before.status, after.status) != (200, 401):
        field.complain(f"before and after it was revoked a key got {before.status} and {after.status}")


@FAMILY.attack("read")
async def role_matrix(field: Field) -> None:
    """A `read` key tries everything that it may not do."""
    tries = [
        ("POST", f"/seq/{ATTACKER}/copy/execute", {}),
        ("POST", f"/seq/{ATTACKER}/copy/jobs", {}),
        ("POST", f"/seq/{ATTACKER}/walk/step", {"stepIndex": 0}),
        ("PUT", f"/flows/{ATTACKER}/copy", {"slug": "copy", "steps": []}),
        ("POST", f"/flows/{ATTACKER}/copy/publish", None),
        ("PUT", f"/flows/{ATTACKER}/copy/production", {"version": 1}),
        ("GET", "/keys", None),
        ("POST", "/keys", {"role": "admin"}),
        ("DELETE", "/keys/1", None),
    ]
    for method, target, body in tries:
        answer = await field.call(method, target, body)
        if answer.status not in (403, 404):
            field.complain(f"a `read` key got {answer.status} from {method} {target}")
    await until_over(field)
