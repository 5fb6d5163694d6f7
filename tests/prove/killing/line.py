"""HTTP to a server that comes and goes, as a careful caller uses it, and what callers asked for and heard.

Raw HTTP, without our client: a lie of the server must not be hidden by the kindness of the client. The book
is written by the callers as the answers come, and read by the laws after each kill.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

import httpx2
import msgspec

from runglass.log.trace import TERMINAL
from runglass.wire.sse import Decoder, Frame
from tests.laws.stored import Told, broken_by_readers, the_list_tells_what_the_trace_tells
from tests.prove.killing.flows import PLACE


class Asked(msgspec.Struct, kw_only=True):
    """One run that a caller asked for. `tag` is its session id too, so that it is found without an answer.

    `run_id` is set once the caller was told of it, `answer` once it has the last answer. `is_left` runs may
    stay paused: their caller went away on purpose, or without knowing that there is a run.
    """

    tag: str
    flow: str
    n: int
    trigger: str
    run_id: str | None = None
    answer: dict[str, Any] | None = None
    status: int | None = None
    is_left: bool = False
    was_cancelled: bool = False
    may_be_cancelled: bool = False


class Book:
    """All that callers know of one folder of data.

    `told` has each event that a tail was sent, by run and seq; `walked` those of step-through calls, in which
    the outputs may stand in full. `ended_at` are the runs whose stream said that nothing follows. `refused`
    are calls, by tag, that were told that nothing was started, with the run that there was before. `lies` are
    what a caller alone could see. A program `of_before` tells nothing that it does not know, and drops from
    the row of a run what it does not know when it goes on with it.
    """

    def __init__(self, *, of_before: bool = False) -> None:
        self.of_before = of_before
        self.asked: dict[str, Asked] = {}
        self.told: dict[str, dict[int, bytes]] = {}
        self.walked: dict[str, dict[int, bytes]] = {}
        self.ended_at: list[tuple[str, int]] = []
        self.refused: set[tuple[str, str | None]] = set()
        self.lies: list[str] = []
        self.events = 0
        self.resumes = 0
        self.repeats = 0

    def tell(self, run_id: str, seq: int, data: bytes) -> None:
        """Notes an event from a tail. A seq that was told before must be the same event."""
        self.events += 1
        before = self.told.setdefault(run_id, {}).setdefault(seq, data)
        if before != data:
            self.lies.append(f"a reader was told two events {seq} of run {run_id}: {before!r} and {data!r}")

    def walk(self, run_id: str, seq: int, data: bytes) -> None:
        self.events += 1
        self.walked.setdefault(run_id, {}).setdefault(seq, data)

    def known(self) -> list[Asked]:
        """The runs that their callers were told of."""
        return [asked for asked in self.asked.values() if asked.run_id is not None]


TIMEOUT_S = 30.0
BROKEN, UNAVAILABLE = 0, 503
RETRY_S = 0.005


class Answer(NamedTuple):
    """`status` is BROKEN where the connection broke before the end."""

    status: int
    body: Any


class Signal(Protocol):
    async def wait(self) -> object: ...


class Upstream(Protocol):
    """Whoever answers: a server, or several behind one address.

    `stopping` says that it may end answers in order that are not complete, `gone` that the one which has done
    so will not do it again.
    """

    @property
    def up(self) -> Signal: ...
    @property
    def gone(self) -> Signal: ...
    @property
    def stopping(self) -> bool: ...


class Line:
    """Requests to an upstream that comes and goes; each waits until it is up.

    After an answer that is none it waits for `retry_s`.
    """

    def __init__(self, server: Upstream, http: httpx2.AsyncClient, *, retry_s: float = RETRY_S) -> None:
        self.server = server
        self._http = http
        self._retry_s = retry_s

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> Answer | None:
        """The answer; None if the connection broke, and nobody knows what has happened."""
        await self.server.up.wait()
        try:
            answer = await self._http.request(method, path, json=body, headers=headers)
        except httpx2.TransportError:
            await self._noticed()
            return None
        return _read(answer)

    async def insist(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> Answer:
        """The answer, however often it takes: for what may be sent again."""
        while True:
            stopping = self.server.stopping
            answer = await self.ask(method, path, body, headers=headers)
            if answer is None or answer.status == UNAVAILABLE:
                await self._noticed()
            elif is_interrupted(answer) and (stopping or self.server.stopping):
                # The run goes on without this server: its outcome is to be had from the next one.
                await self.server.gone.wait()
            else:
                return answer

    async def frames(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[Frame | Answer, None]:
        """The events of one answer; an `Answer`, last, if it was a refusal or broke off."""
        await self.server.up.wait()
        decoder = Decoder()
        try:
            async with self._http.stream(method, path, json=body, headers=headers) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    yield _read(answer)
                    return
                async for chunk in answer.aiter_raw():
                    for frame in decoder.feed(chunk):
                        yield frame
        except httpx2.TransportError:
            await self._noticed()
            yield Answer(BROKEN, None)

    async def _noticed(self) -> None:
        # The connection breaks a moment before the process is known to be gone.
        await asyncio.sleep(self._retry_s)


def is_interrupted(answer: Answer) -> bool:
    """Whether it says that the run could not be waited for, and not how it has ended."""
    detail = answer.body.get("detail", {})
    return bool(detail.get("code") == "INTERNAL_ERROR" and detail.get("executionId"))


def _read(answer: httpx2.Response) -> Answer:
    if answer.headers.get("content-type") == "application/json":
        return Answer(answer.status_code, answer.json())
    # Not by the contract: whoever gets it will say so, and what it was.
    return Answer(answer.status_code, {"detail": {"code": "NO_JSON", "message": answer.text}})


READ, BESIDE = 40, 8
"""The last runs of a round that are read over HTTP, and how many of them at a time."""
POLL_S = 0.05


async def listed_runs(line: Line, *, status: str | None = None) -> dict[str, dict[str, Any]]:
    runs: dict[str, dict[str, Any]] = {}
    cursor = ""
    while True:
        query = "".join(
            ["?limit=100", f"&status={status}" if status else "", f"&cursor={cursor}" if cursor else ""]
        )
        page = (await line.insist("GET", f"/flow-runs{query}")).body
        runs |= {run["id"]: run for run in page["runs"]}
        cursor = page.get("nextCursor") or ""
        if not cursor:
            return runs


async def all_ended(line: Line) -> None:
    for status in ("pending", "running"):
        # Never back to pending: what has been waited for first stays true.
        going_on = await listed_runs(line, status=status)
        while going_on:
            await asyncio.sleep(POLL_S)
            going_on = await listed_runs(line, status=status)


async def disagreements(line: Line, book: Book) -> list[str]:
    """What different readers are told differently about the last runs whose callers know them."""
    listed = await listed_runs(line)
    gate = asyncio.Semaphore(BESIDE)

    async def look(one: Asked) -> list[str]:
        async with gate:
            return [lie async for lie in _of_run(line, one, listed, of_before=book.of_before)]

    found = await asyncio.gather(*[look(one) for one in book.known()[-READ:]])
    return [lie for lies in found for lie in lies]


async def _of_run(
    line: Line, asked: Asked, listed: dict[str, dict[str, Any]], *, of_before: bool
) -> AsyncIterator[str]:
    run_id = str(asked.run_id)
    trace = (await line.insist("GET", f"/flow-runs/{run_id}/trace")).body
    status = trace["flowRun"]["status"]
    session = (await line.insist("GET", f"/seq/sessions/{asked.tag}")).body
    states = [(entry["executionId"], entry["status"]) for entry in session["executions"]]
    if states != [(run_id, status)]:
        yield f"run {run_id} is {status} in its trace and its session says {states}"
    if asked.trigger == "job":
        job = (await line.insist("GET", f"/seq/{PLACE}/{asked.flow}/jobs/{run_id}")).body
        if job["status"] != {"cancelled": "failed"}.get(status, status):
            yield f"run {run_id} is {status} and its job {job}"
    told = Told(run_id, [], trace, listed=listed.get(run_id), attempts={})
    if status not in TERMINAL:
        lies = the_list_tells_what_the_trace_tells(told)
    else:
        for step_id in dict.fromkeys(step["stepId"] for step in trace["steps"] if step["attempt"] > 1):
            path = f"/flow-runs/{run_id}/steps/{step_id}/trace?attempt=all"
            told.attempts[step_id] = (await line.insist("GET", path)).body
        async with aclosing(line.frames("GET", f"/flow-runs/{run_id}/trace/stream")) as stream:
            async for said in stream:
                if isinstance(said, Frame):
                    told.events.append(msgspec.json.decode(said.data))
        lies = broken_by_readers(told, of_before=of_before)
    for lie in lies:
        yield str(lie)
