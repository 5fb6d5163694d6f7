"""The load of a server or a cluster: callers of every kind, who go on asking while it is killed under them.

Each script asks for one run and sees it through, as far as a caller can. What they were told goes into the
book; only what a caller sees at once, such as a stream that ends too soon, is called a lie here.
"""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Self

import msgspec

from runglass.log.events import TERMINAL_EVENTS
from runglass.log.trace import TERMINAL
from runglass.wire.sse import Frame
from tests.laws.law import require
from tests.prove.killing.flows import PLACE, parameters
from tests.prove.killing.laws import Laws
from tests.prove.killing.line import (
    BROKEN,
    UNAVAILABLE,
    Answer,
    Asked,
    Book,
    Line,
    all_ended,
    is_interrupted,
    listed_runs,
)
from tests.unit.engine.fake_provider import LOOK

PAUSES = frozenset({"step_paused", "step_paused_for_tool_calls"})
STRAIGHT = ["line", "nest", "fork", "again", "fails"]
WALKED = STRAIGHT[:3]
KEYED, ABANDONS, CANCELS, WATCHES = 0.7, 0.05, 0.3, 0.6
"""Shares: of calls under an Idempotency-Key, of walks given up, of jobs cancelled, of jobs followed live."""
LEFT_HERE = 0.6
"""How probable it is that a walk that is given up is so after its next step; most have two."""


END_LIMIT_S = 90.0
"""How long runs and callers may take to come to an end once nothing breaks any more."""


class Load:
    """Callers and watchers of their runs, until the block ends; a caller pauses for `pause_s` in the mean."""

    def __init__(
        self, line: Line, book: Book, place: str, *, callers: int, watchers: int, pause_s: float = 0.0
    ) -> None:
        self._closing = asyncio.Event()
        self._watched: Counter[str] = Counter()
        self._reached: Counter[str] = Counter()
        self._line = line
        self._book = book
        self._place = place
        self._counts = callers, watchers
        self._random = random.Random(place)
        self._pause_s = pause_s
        self._live: dict[str, Asked] = {}

    async def __aenter__(self) -> Self:
        callers, watchers = self._counts
        self._calling = [asyncio.create_task(self._call()) for _ in range(callers)]
        self._watching = [asyncio.create_task(self._watch()) for _ in range(watchers)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = [*self._calling, *self._watching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raises what a caller has found out."""
        require(self._book.lies, self._place)
        for task in (*self._calling, *self._watching):
            if task.done():
                task.result()

    async def end(self) -> None:
        """Returns when every caller has its answer and nothing goes on any more. Raises AssertionError."""
        self._closing.set()
        try:
            async with asyncio.timeout(END_LIMIT_S):
                await asyncio.wait(self._calling)
                await all_ended(self._line)
                paused = await listed_runs(self._line, status="paused")
                followed = {run_id for run_id, readers in self._watched.items() if readers}
                # Who follows a run that stays paused follows it for ever.
                if not followed & paused.keys():
                    await asyncio.wait(self._watching)
        except TimeoutError:
            async with asyncio.timeout(END_LIMIT_S):
                runs = (await listed_runs(self._line)).items()
            ids = {asked.tag: asked.run_id for asked in self._book.asked.values()}
            names = [task.get_name() for task in (*self._calling, *self._watching) if not task.done()]
            late = [f"not everything came to an end within {END_LIMIT_S:g} s once all was well"]
            late += [f"a caller still {name}, run {ids.get(name[-36:])}" for name in names]
            odd = [f"{run_id} is {run['status']}" for run_id, run in runs if run["status"] not in TERMINAL]
            require([*late, *odd], self._place)
        self.check()

    async def _call(self) -> None:
        """Asks for one run after the other until the load ends."""
        scripts: list[Callable[[], Awaitable[None]]] = [
            *([self._execute, self._queue, self._walk] * 2),
            lambda: self._job(self._asked("hold", "job")),
            self._use_tools,
        ]
        while not self._closing.is_set():
            await asyncio.sleep(self._random.uniform(0, 2 * self._pause_s))
            await self._random.choice(scripts)()

    async def _watch(self) -> None:
        """Follows one run after the other, each from some event on to its end."""
        while not self._closing.is_set():
            runs = [asked.run_id for asked in self._live.values() if asked.run_id is not None]
            if not runs:
                await self._line.server.up.wait()
                await asyncio.sleep(0.01)
                continue
            run_id = self._random.choice(runs)
            self._watched[run_id] += 1
            _says(f"watches run {run_id}")
            await self._follow(run_id, after=self._random.randint(0, self._reached[run_id]))
            self._watched[run_id] -= 1

    async def _execute(self) -> None:
        asked = self._asked(self._random.choice(STRAIGHT), "api")
        await self._posted(asked, "execute", self._body(asked))
        del self._live[asked.tag]

    async def _queue(self) -> None:
        await self._job(self._asked(self._random.choice(STRAIGHT), "job"))

    async def _job(self, asked: Asked) -> None:
        answer = await self._posted(asked, "jobs", self._body(asked))
        if answer is not None:
            assert asked.run_id is not None, answer
            if self._random.random() < CANCELS:
                await self._cancel(asked)
            if self._random.random() < WATCHES:
                await self._follow(asked.run_id, after=0)
            path = f"/seq/{PLACE}/{asked.flow}/jobs/{asked.run_id}"
            state = await self._line.insist("GET", path)
            while state.body.get("status") in ("pending", "running"):
                await asyncio.sleep(0.02)
                state = await self._line.insist("GET", path)
            asked.status, asked.answer = state.status, state.body
        del self._live[asked.tag]

    async def _cancel(self, asked: Asked) -> None:
        await asyncio.sleep(self._random.uniform(0, 0.1))
        # From here on nobody knows whether it arrives.
        asked.may_be_cancelled = True
        answer = await self._line.ask("DELETE", f"/seq/{PLACE}/{asked.flow}/runs/{asked.run_id}")
        asked.was_cancelled = answer is not None and answer.status == 202

    async def _use_tools(self) -> None:
        asked = self._asked("tools", "api")
        asked.is_left = self._random.random() < ABANDONS
        answer = await self._posted(asked, "execute", {**self._body(asked), "tools": [LOOK]})
        while answer is not None and answer.body.get("status") == "tool_calls_required" and not asked.is_left:
            body = {**self._body(asked), "tools": [LOOK], **_answered(answer.body)}
            answer = await self._posted(asked, "execute", body)
            if answer is not None and answer.status == 409:
                # An answer got lost under another key, and the run goes on without us.
                assert asked.run_id is not None
                await self._follow(asked.run_id, after=0, until=TERMINAL_EVENTS | PAUSES)
                asked.answer, asked.status = None, None
                break
        del self._live[asked.tag]

    async def _walk(self) -> None:
        """A step-through, every call under its own key; some go through to the end in one go, some stop."""
        asked = self._asked(self._random.choice(WALKED), "step")
        asked.is_left = self._random.random() < ABANDONS
        key, head = str(uuid.uuid4()), 0
        body = {**self._body(asked), "stepIndex": 0}
        while True:
            last, head = await self._step(asked, body, key, head)
            if last is None or last["eventType"] in TERMINAL_EVENTS:
                break
            if asked.is_left and self._random.random() < LEFT_HERE:
                break
            key = str(uuid.uuid4())
            body = {"executionId": asked.run_id, "stepIndex": last["stepIndex"] + 1}
            body["runRemaining"] = not asked.is_left and self._random.random() < 0.2
        del self._live[asked.tag]

    async def _step(
        self, asked: Asked, body: dict[str, Any], key: str, head: int
    ) -> tuple[dict[str, Any] | None, int]:
        """One call of a walk, sent again until its segment is over: the last event and its seq."""
        path = f"/seq/{PLACE}/{asked.flow}/step"
        while True:
            seq = head
            last: dict[str, Any] | Answer | None = None
            stream = self._line.frames("POST", path, body, headers=self._headers(asked, key))
            async with aclosing(stream):
                async for said in stream:
                    if not isinstance(said, Frame):
                        last = said
                        break
                    event = msgspec.json.decode(said.data)
                    if event["seq"] == 0:
                        # None of the log's: what a caller is told beyond it has no number.
                        continue
                    last = event
                    seq = self._in_order(said, seq, f"a step call of run {asked.run_id}")
                    asked.run_id = event["executionId"]
                    self._book.walk(event["executionId"], seq, said.data)
            if isinstance(last, Answer):
                # Of several servers one may not know whether the call was stored; the repeat finds out.
                in_doubt = self._line.server.stopping and last.status != BROKEN and is_interrupted(last)
                if last.status not in (BROKEN, UNAVAILABLE) and not in_doubt:
                    self._book.lies.append(f"a step call of run {asked.run_id} was refused: {last}")
                    return None, seq
            elif isinstance(last, dict) and last["eventType"] in TERMINAL_EVENTS | PAUSES:
                return last, seq
            elif not self._line.server.stopping:
                self._book.lies.append(f"a step call of run {asked.run_id} ended by itself after event {seq}")
            self._book.repeats += 1

    async def _follow(self, run_id: str, *, after: int, until: frozenset[str] = TERMINAL_EVENTS) -> None:
        """Follows the run from seq `after` on, through every death of the server, to an event of `until`."""
        seq, ended = after, False
        while not ended:
            path = f"/flow-runs/{run_id}/trace/stream"
            stream = self._line.frames("GET", path, headers={"Last-Event-ID": str(seq)})
            said: Frame | Answer | None = None
            async with aclosing(stream):
                async for said in stream:
                    if not isinstance(said, Frame):
                        break
                    if ended:
                        self._book.lies.append(f"the stream of run {run_id} went on after its last event")
                    seq = self._in_order(said, seq, f"the stream of run {run_id}")
                    self._book.tell(run_id, seq, said.data)
                    self._reached[run_id] = max(seq, self._reached[run_id])
                    ended = said.event in until
                    if ended and said.event in PAUSES:
                        return
            if isinstance(said, Frame) and not ended and not self._line.server.stopping:
                self._book.lies.append(f"the stream of run {run_id} ended by itself after event {seq}")
            elif isinstance(said, Answer) and said.status not in (BROKEN, UNAVAILABLE):
                self._book.lies.append(f"the stream of run {run_id} was refused: {said}")
                return
            elif said is None and not self._line.server.stopping:
                # Nothing is left to be said: that must be so because the run has ended with this event.
                self._book.ended_at.append((run_id, seq))
                return
            elif said is None and await self._has_ended(run_id):
                return
            self._book.resumes += not ended

    async def _has_ended(self, run_id: str) -> bool:
        """Whether there is nothing to follow, after a stream without a word from a server that may stop."""
        trace = await self._line.insist("GET", f"/flow-runs/{run_id}/trace")
        return trace.body["flowRun"]["status"] in TERMINAL

    def _in_order(self, frame: Frame, seq: int, what: str) -> int:
        if int(frame.id) != seq + 1:
            self._book.lies.append(f"{what} went from event {seq} to {frame.id}")
        return int(frame.id)

    async def _posted(self, asked: Asked, way: str, body: dict[str, Any]) -> Answer | None:
        """The answer to a call, under a key as often as it takes; None where it is not known."""
        path = f"/seq/{PLACE}/{asked.flow}/{way}"
        if self._random.random() < KEYED or way == "step":
            key = str(uuid.uuid4())
            first = await self._line.insist("POST", path, body, headers=self._headers(asked, key))
            answer: Answer | None = first
            if self._random.random() < 0.1:
                again = await self._line.insist("POST", path, body, headers=self._headers(asked, key))
                self._book.repeats += 1
                if not self._is_same(first, again):
                    self._book.lies.append(f"one call, two answers: {first} and {again}")
        else:
            answer = await self._line.ask("POST", path, body, headers=self._headers(asked, None))
        if answer is None or is_interrupted(answer):
            # It may have been done or not, and what was said before is no longer the last word.
            asked.is_left = True
            asked.answer = asked.status = None
            return None
        if answer.status == UNAVAILABLE:
            self._book.refused.add((asked.tag, asked.run_id))
            asked.is_left = True
            return None
        detail = answer.body.get("detail", {})
        asked.run_id = answer.body.get("executionId") or detail.get("executionId") or asked.run_id
        asked.status, asked.answer = answer.status, answer.body
        return answer

    def _is_same(self, first: Answer, again: Answer) -> bool:
        if self._book.of_before and isinstance(first.body, dict) and isinstance(again.body, dict):
            added = first.body.keys() ^ again.body.keys()
            first, again = (
                each._replace(body={name: told for name, told in each.body.items() if name not in added})
                for each in (first, again)
            )
        return first == again

    def _asked(self, flow: str, trigger: str) -> Asked:
        n = self._random.randrange(100)
        tag = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        asked = self._book.asked[tag] = self._live[tag] = Asked(tag=tag, flow=flow, n=n, trigger=trigger)
        _says(f"asks for {flow} by {trigger}, tag {tag}")
        return asked

    def _body(self, asked: Asked) -> dict[str, Any]:
        return {"message": "go", "parameters": parameters(asked.tag, asked.n), "trace": True}

    def _headers(self, asked: Asked, key: str | None) -> dict[str, str]:
        headers = {"X-Session-Id": asked.tag}
        return headers if key is None else headers | {"Idempotency-Key": key}


def _says(what: str) -> None:
    """Names the task by what its caller is about, for whoever finds that it does not come to an end."""
    task = asyncio.current_task()
    assert task is not None
    task.set_name(what)


def _answered(required: dict[str, Any]) -> dict[str, Any]:
    """The call that takes up a run which has asked for tools: everything it said, and the results."""
    results = [
        {"role": "tool", "toolCallId": call["id"], "content": "seen"} for call in required["toolCalls"]
    ]
    kept = ("executionId", "pausedAtStep", "iterationsUsed", "accumulatedOutputs")
    return {
        **{name: required[name] for name in kept},
        "toolCallMessages": [*required["toolCallMessages"], *results],
    }


def count_round(seen: Counter[str], laws: Laws) -> None:
    """Adds the runs of one round, those that are not settled, and what their callers were sent."""
    for run_id, log in laws.logs.items():
        if run_id not in laws.settled:
            seen[f"runs: {log.status}"] += 1
            seen["events: stored"] += len(log.events)
            seen["outside: attempts lost and told as WORKER_LOST"] += len(log.lost)
    seen["events: sent to readers"] += laws.book.events
    seen["events: resumes of readers"] += laws.book.resumes
    seen["outside: calls sent again by their callers"] += laws.book.repeats
    seen["outside: calls of a model, each by an attempt of its own"] += laws.outside.total
