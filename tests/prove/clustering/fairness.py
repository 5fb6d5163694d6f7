"""A crowd of jobs of one project, and how long another one's job waits behind it."""

import asyncio
import time
from functools import partial
from typing import Any

from tests.prove.killing.book import PLACE
from tests.prove.killing.flows import parameters
from tests.prove.killing.line import Line
from tests.waiting import until_told

CROWD = "acme/crowd"
CROWD_FLOW = "slug: short\nsteps:\n  - {id: rest, type: wait, ms: 1500}\n"
JOBS = 400
"""So many of them keep all places busy for some seconds: who had to wait for the last one would show it."""
ASKED = 8
BESIDE = 16
BOUND_S = 2.0
POLL_S = 0.02
END_LIMIT_S = 60.0


async def neighbour_waits(crowd: Line, neighbour: Line) -> list[float]:
    """The seconds from the answer to each of some jobs to its begin, while a crowd of others waits.

    Raises AssertionError where that is no crowd.
    """
    gate = asyncio.Semaphore(BESIDE)

    async def ask_one() -> None:
        async with gate:
            await _job(crowd, CROWD, "short")

    await asyncio.gather(*[ask_one() for _ in range(JOBS)])
    waits = []
    for number in range(ASKED):
        tag = f"00000000-0000-4000-8000-{number:012d}"
        body = {"message": "go", "parameters": parameters(tag, number)}
        run_id = await _job(neighbour, PLACE, "line", body)
        began = time.monotonic()
        await until_told(partial(_has_begun, neighbour, run_id), every_s=POLL_S)
        waits.append(time.monotonic() - began)
    is_over = await _has_none_waiting(crowd)
    assert not is_over, f"the crowd of {JOBS} jobs was over before {ASKED} jobs of another project had begun"
    async with asyncio.timeout(END_LIMIT_S):
        await until_told(partial(_has_none_waiting, crowd), every_s=10 * POLL_S)
    return waits


async def _job(line: Line, place: str, flow: str, body: dict[str, Any] | None = None) -> str:
    answer = await line.insist("POST", f"/seq/{place}/{flow}/jobs", body or {"message": "go"})
    assert answer.status == 202, answer
    return str(answer.body["executionId"])


async def _has_begun(line: Line, run_id: str) -> bool:
    answer = await line.insist("GET", f"/seq/{PLACE}/line/jobs/{run_id}")
    return bool(answer.body["status"] != "pending")


async def _has_none_waiting(line: Line) -> bool:
    answer = await line.insist("GET", "/flow-runs?status=pending&limit=1")
    return not answer.body["runs"]
