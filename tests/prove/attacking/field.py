"""What an attacker has: an address, keys of a project of its own, time, and a place to tell what it saw."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runglass.config.settings import Settings
from tests.prove.attacking.hostile_provider import HostileProvider
from tests.prove.attacking.http import Answer, Connection, call, head
from tests.prove.attacking.places import ATTACKER
from tests.prove.attacking.seed import Seeded

SOURCE = "127.0.0.66"
"""The attacker's address; the neighbour has another one, as it would in the world."""

API = "/api/v1"
MOST_COMPLAINTS = 5


@dataclass(kw_only=True)
class Field:
    """Where one attack takes place."""

    address: tuple[str, int]
    seeded: Seeded
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

    def headers(self, role: str | None = None) -> list[tuple[str, str]]:
        """The attacker's key, or that of another role in its project; none of nobody."""
        key = self.seeded.keys.get(role or self.role)
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
    ) -> Answer:
        """One request below `/api/v1`, with the attacker's key. A body that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        answer = await call(
            self.address,
            method,
            f"{API}{target}",
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

    async def override(self, fields: dict[str, Any], **body: Any) -> Answer:
        """Executes the flow `answer`, one llm step on echo, with other fields of its step."""
        return await self.execute("answer", {"message": "x", **body, "blockOverrides": {"answer": fields}})

    async def publish(self, slug: str, steps: list[dict[str, Any]], **fields: Any) -> str:
        """The slug of a new flow of the attacker's project, pushed by its admin."""
        flow = {"slug": slug, "steps": steps, **fields}
        pushed = await self.call("PUT", f"/flows/{ATTACKER}/{slug}", flow, role="admin")
        if pushed.status == 200:
            await self.call("POST", f"/flows/{ATTACKER}/{slug}/publish", role="admin")
        return slug

    async def together(self, count: int, make: Callable[[int], Awaitable[Any]]) -> list[Any]:
        """So many at once; what they give. Each ends by itself or with the attack."""
        return await asyncio.gather(*[make(number) for number in range(count)])

    async def flood(
        self, make: Callable[[int], Awaitable[Any]], *, beside: int = 4, per_s: float = 40.0
    ) -> None:
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

        async def one(number: int) -> Connection | None:
            try:
                async with asyncio.timeout(3):
                    return await Connection.open(self.address, source=sources[number % len(sources)])
            except OSError:
                self.tally[0] += 1
                return None

        opened = await asyncio.gather(*[one(number) for number in range(count)])
        taken = [connection for connection in opened if connection is not None]
        self.opened += taken
        return taken

    def get(self, target: str, *headers: tuple[str, str]) -> bytes:
        """The head of a request below `/api/v1` with the attacker's key."""
        return head("GET", f"{API}{target}", host="x", headers=[*self.headers(), *headers])

    async def unread(self, targets: Sequence[str], count: int) -> None:
        """So many connections that ask for these in turns and take nothing, until the time is over."""
        for number, connection in enumerate(await self.connect(count)):
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            with suppress(OSError):
                await connection.send(self.get(targets[number % len(targets)]))
        await asyncio.sleep(max(0.0, self.left_s))

    async def leave(self, target: str, *, after_s: float = 0.02) -> None:
        """Asks for it and is gone before the answer."""
        with suppress(OSError):
            async with await Connection.open(self.address, source=SOURCE) as connection:
                await connection.send(self.get(target))
                await asyncio.sleep(after_s)
