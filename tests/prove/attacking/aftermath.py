"""What is to be found after an attack: a server that works, and everything that it has acknowledged."""

import random
from collections.abc import Sequence

from tests.prove.attacking.field import API, Field
from tests.prove.attacking.http import call
from tests.prove.attacking.neighbour import MESSAGE, PLACE, Fault, require_whole

LOOKED_AT = 30
"""Runs of the neighbour, and of the attacker, of those that there are."""
FIRST_RUN_S = 6.0

Headers = list[tuple[str, str]]


async def first_run(address: tuple[str, int], headers: Headers) -> str | None:
    """Why the neighbour cannot run its flow; None where it can."""
    body = b'{"message": "%s"}' % MESSAGE.encode()
    done = await call(address, "POST", f"{PLACE}/execute", body, headers=headers, timeout_s=FIRST_RUN_S)
    if done.status == 200:
        return None
    return f"after the restart a run gave {done.status}: {done.fault}{done.body[:200]!r}"


async def lost(address: tuple[str, int], headers: Headers, runs: Sequence[str]) -> list[str]:
    """What is wrong with the first of the neighbour's runs that has not all of its events and a good end."""
    try:
        for run_id in random.sample(runs, min(LOOKED_AT, len(runs))):
            await require_whole(address, run_id, headers)
    except Fault as fault:
        return [f"lost: {fault}"[:300]]
    return []


async def lost_of_attacker(field: Field) -> list[str]:
    """The first run of the attacker's that was acknowledged and is not there."""
    runs = field.acknowledged
    for run_id, role in random.sample(runs, min(LOOKED_AT, len(runs))):
        target = f"{API}/flow-runs/{run_id}/trace"
        found = await call(field.address, "GET", target, headers=field.headers(role))
        # A large trace may take its time, or be refused to one who asks for too much at once.
        if found.status == 404:
            return [f"lost: the acknowledged run {run_id} is not there"]
    return []
