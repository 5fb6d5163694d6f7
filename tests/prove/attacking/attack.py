"""What an attack is, the families in which they are kept, and what an attacker has."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from runglass.config.settings import Settings
from tests.prove.attacking.hostile_provider import HostileProvider
from tests.prove.attacking.http import ATTACKER, Answer, Connection, call, head
from tests.prove.attacking.seed import Keys, StoreKind
from tests.prove.attacking.verdict import FLOOR_MS

SOURCE = "127.0.0.66"
"""The attacker's address; the neighbour has another one, as it would in the world."""

API = "/api/v1"
MOST_COMPLAINTS = 5


@dataclass(kw_only=True)
class Field:
    """Where one attack takes place."""

    address: tuple[str, int]
    keys: Keys
    hostile: HostileProvider
    role: str
    ends_s: float
    """When the attack is over, by the clock of the event loop."""
    data: Path
    """The server's data folder; for what the harness does to it, not the attacker."""
    settings: Settings
    """Of its store, in the same way."""
    log: Path
    complaints: list[str] = field(default_factory=list)
    tally: Counter[int] = field(default_factory=Counter)
    """Answers by their status, 0 for a connection that broke."""
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    """Ids of runs that the server has taken on, and who may read them."""
    opened: list[Connection] = field(default_factory=list)
    """Connections that the attack holds; they are cut when it is over."""

    def complain(self, what: str) -> None:
        """Tells of something that must not be; the first few are kept, each once."""
        if what not in self.complaints and len(self.complaints) < MOST_COMPLAINTS:
            self.complaints.append(what)

    @property
    def left_s(self) -> float:
        """How many seconds the attack still has."""
        return self.ends_s - asyncio.get_running_loop().time()

    @property
    def host(self) -> str:
        return "{}:{}".format(*self.address)

    def headers(self, role: str | None = None) -> list[tuple[str, str]]:
        """The attacker's key, or that of another role in its project; none of nobody."""
        key = self.keys.get(role or self.role)
        return [] if key is None else [("Authorization", f"Bearer {key}")]

    async def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        role: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        source: str = SOURCE,
        timeout_s: float = 10.0,
        below: str = API,
    ) -> Answer:
        """One request below `/api/v1`, with the attacker's key. A body that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        answer = await call(
            self.address,
            method,
            f"{below}{target}",
            data,
            headers=[*self.headers(role), *headers],
            source=source,
            timeout_s=timeout_s,
        )
        self.tally[answer.status] += 1
        return answer

    async def execute(self, slug: str, body: Any = None, *, way: str = "execute", **how: Any) -> Answer:
        """Runs a flow of the attacker's project, by `execute`, `jobs` or `step`."""
        answer = await self.call("POST", f"/seq/{ATTACKER}/{slug}/{way}", {} if body is None else body, **how)
        if answer.status == 202:
            self.acknowledged.append((str(answer.json().get("executionId")), "admin"))
        return answer

    async def job(self, slug: str, body: Any = None, **how: Any) -> str:
        return str((await self.execute(slug, body, way="jobs", **how)).json().get("executionId"))

    async def override(self, fields: dict[str, Any]) -> Answer:
        """Executes the flow `answer`, one llm step on echo, with other fields of its step."""
        return await self.execute("answer", {"message": "x", "blockOverrides": {"answer": fields}})

    async def publish(self, slug: str, steps: list[dict[str, Any]], **fields: Any) -> str:
        """The slug of a new flow of the attacker's project, pushed by its admin."""
        flow = {"slug": slug, "steps": steps, **fields}
        pushed = await self.call("PUT", f"/flows/{ATTACKER}/{slug}", flow, role="admin")
        if pushed.status == 200:
            await self.call("POST", f"/flows/{ATTACKER}/{slug}/publish", role="admin")
        return slug

    async def jobs(self, steps: "Steps", times: int = 1, **fields: Any) -> None:
        """Publishes a flow of these steps and starts so many jobs of it at once."""
        slug = await self.publish("jobs", steps, **fields)
        await self.together(times, lambda _: self.job(slug))

    async def on_each(self, count: int, act: Callable[[Connection], Awaitable[object]]) -> None:
        """Acts on so many connections, as far as the server takes them, at once; one may break meanwhile."""

        async def one(connection: Connection) -> None:
            with suppress(OSError, EOFError):
                await act(connection)

        await asyncio.gather(*[one(connection) for connection in await self.connect(count)])

    async def resuming(self, contents: Sequence[str]) -> dict[str, Any]:
        """The call that goes on with a new run of the flow `answer`, which waits for what its tool says."""
        asked = (await self.execute("answer", {"message": "x", "tools": [LOOK]})).json()
        call_id = next((call["id"] for call in asked.get("toolCalls", [])), "none")
        results = [{"role": "tool", "toolCallId": call_id, "content": content} for content in contents]
        return {"executionId": asked.get("executionId"), "toolCallMessages": results}

    async def together(self, count: int, make: Callable[[int], Awaitable[Any]]) -> list[Any]:
        """So many at once; what they give. Each ends by itself or with the attack."""
        return await asyncio.gather(*[make(number) for number in range(count)])

    async def flood(self, make: Callable[[int], Awaitable[Any]], *, beside: int, per_s: float) -> None:
        """One after the other in `beside` lanes, `per_s` in all, until the time is over.

        The rate keeps an attack from being nothing but a lot of requests, which any machine has an end of.
        """
        numbers = itertools.count()

        async def lane(start: int) -> None:
            loop = asyncio.get_running_loop()
            due_s = loop.time() + start / per_s
            while (wait_s := due_s - loop.time()) < self.left_s:
                await asyncio.sleep(max(0.0, wait_s))
                await make(next(numbers))
                due_s = max(due_s + beside / per_s, loop.time() - 1.0)

        await asyncio.gather(*[lane(number) for number in range(beside)])

    async def connect(self, count: int, *, sources: Sequence[str] = (SOURCE,)) -> list[Connection]:
        """As many connections as the server takes of `count`, from these addresses in turns."""
        taken: list[Connection] = []

        async def one(number: int) -> None:
            try:
                async with asyncio.timeout(3):
                    taken.append(await Connection.open(self.address, source=sources[number % len(sources)]))
            except OSError:
                self.tally[0] += 1

        await self.together(count, one)
        self.opened += taken
        return taken

    async def raw(self, request: bytes, *, source: str = SOURCE) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer to these bytes, and is gone. Raises OSError and EOFError."""
        async with await Connection.open(self.address, source=source) as connection:
            # A refusal may come, and the connection go, while much is still being sent.
            with suppress(ConnectionError):
                await connection.send(request)
            return await connection.answer_head()

    def get(self, target: str, *headers: tuple[str, str]) -> bytes:
        """The head of a request below `/api/v1` with the attacker's key."""
        return head("GET", f"{API}{target}", host="x", headers=[*self.headers(), *headers])

    async def streams(self, target: str, count: int) -> list[Connection]:
        """As many connections, of `count`, as there begins a stream of it on."""
        begun: list[Connection] = []

        async def begin(connection: Connection) -> None:
            await connection.send(self.get(target, ("Connection", "close")))
            if (await connection.answer_head())[0] == 200:
                begun.append(connection)

        await self.on_each(count, begin)
        return begun

    async def unread(self, targets: Sequence[str], count: int) -> None:
        """So many connections that ask for these in turns and take nothing, until the time is over."""
        for number, connection in enumerate(await self.connect(count)):
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            with suppress(OSError):
                await connection.send(self.get(targets[number % len(targets)]))
        await self.until_over()

    async def until_over(self) -> None:
        await asyncio.sleep(max(0.0, self.left_s))

    async def leave(self, target: str) -> None:
        """Asks for it and is gone before the answer."""
        with suppress(OSError):
            async with await Connection.open(self.address, source=SOURCE) as connection:
                await connection.send(self.get(target))
                await asyncio.sleep(0.02)


Payload = TypeVar("Payload")
Role: TypeAlias = Literal["nobody", "record", "read", "run", "admin"]
"""Whose key the attacker has; of a project of its own, never of the neighbour's."""

Strike: TypeAlias = Callable[[Field], Awaitable[object]]
Call: TypeAlias = Callable[[Field, int], Awaitable[object]]

Steps: TypeAlias = list[dict[str, Any]]
COPY: Steps = [{"id": "copy", "type": "passthrough"}]
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def loop(count: int, steps: Steps = COPY, *, name: str = "each", beside: int = 1) -> Steps:
    over = f"list(range({count}))"
    return [{"id": name, "type": "loop", "over": over, "max_concurrency": beside, "steps": steps}]


def code(text: str) -> Steps:
    return [{"id": "work", "type": "code", "code": text}]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """`strike` goes on until it has done what it wants, or its time is over, when it is cancelled.

    What it finds to be wrong beside the neighbour's fate it tells by `Field.complain`. `judge`, asked when
    all is over, may do so too.
    """

    name: str
    family: str
    role: Role
    strike: Strike
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the server beside the defaults."""
    leaves_work: bool = False
    """Whether runs go on after it, so that the next attack needs data of its own."""
    hurts_by_itself: bool = False
    """Whether the harness slows the server down itself, so that the neighbour's time proves nothing."""
    limit_s: float = 0.0
    """How long it may take at least before it is cancelled."""
    floor_ms: float = FLOOR_MS
    """How much slower than in quiet the neighbour may be even if that is more than so many times."""
    refused_share: float = 0.0
    """How many of the neighbour's calls may be answered with UNAVAILABLE, which clients try again."""
    only_on: StoreKind | None = None
    has_second: bool = False
    """Whether a second server is on the same store."""
    judge: Strike | None = None
    prepare: Strike | None = None
    """What is done before the neighbour's quiet time."""


class Family:
    """Attacks of one kind, in the order of their file; `how` they are is as `Attack` has it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.attacks: list[Attack] = []

    def add(self, name: str, strike: Strike, *, role: Role, **how: Any) -> None:
        self.attacks.append(Attack(name=name, family=self.name, role=role, strike=strike, **how))

    def attack(self, role: Role, **how: Any) -> Callable[[Strike], Strike]:
        """Makes a function an attack, which is named after it."""

        def add(strike: Strike) -> Strike:
            self.add(strike.__name__.replace("_", "-"), strike, role=role, **how)
            return strike

        return add

    def each(
        self,
        role: Role,
        strike: Callable[[Field, Payload], Awaitable[object]],
        payloads: Mapping[str, Payload],
        **how: Any,
    ) -> None:
        """Adds an attack for each payload, by which alone they differ."""
        for name, payload in payloads.items():
            self.add(name, lambda field, payload=payload: strike(field, payload), role=role, **how)  # type: ignore[misc]

    def floods(self, role: Role, beside: int, per_s: float, calls: Mapping[str, Call], **how: Any) -> None:
        """Adds an attack for each call, which is made `per_s` times a second in `beside` lanes."""

        async def flood(field: Field, call: Call) -> None:
            await field.flood(partial(call, field), beside=beside, per_s=per_s)

        self.each(role, flood, calls, **how)
