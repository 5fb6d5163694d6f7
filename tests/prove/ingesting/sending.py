"""Programs that send their spans until they are acknowledged, whatever happens to the server meanwhile.

Traces of many sizes, the spans of each out of order, requests with spans of several traces; and now and then
one is sent again though it was acknowledged, as by a sender that did not hear the answer.
"""

import asyncio
import random
from collections import Counter

import httpx2

from tests.prove.ingesting.bodies import Sent, body

SENDERS = 6
BATCH = 400
SIZES = (1, 3, 12, 50, 400, 3000)
REPEATED = 0.05
PAUSE_S = 0.05
TIMEOUT_S = 60.0


class Book:
    """What is sent: of each trace how many spans, and how many spans and requests were acknowledged."""

    def __init__(self, spans: int, seed: int) -> None:
        self.sizes: dict[int, int] = {}
        self.acknowledged: Counter[int] = Counter()
        self.requests = self.repeats = self.failures = 0
        draw = random.Random(f"ingest {seed}")
        left = spans
        while left:
            size = min(draw.choice(SIZES), left)
            self.sizes[len(self.sizes) + 1] = size
            left -= size
        self._draw = draw
        self._traces = iter(self.sizes)

    def take(self) -> list[Sent]:
        """The spans of some traces that nobody has sent yet, in any order; none when there are no more."""
        spans: list[Sent] = []
        while len(spans) < SIZES[-1] and (trace := next(self._traces, None)) is not None:
            # Each span below the one of half its number: a tree that is as deep as it is wide.
            spans += (Sent(trace, number, number // 2) for number in range(1, self.sizes[trace] + 1))
        self._draw.shuffle(spans)
        return spans

    def is_repeated(self) -> bool:
        return self._draw.random() < REPEATED


async def send_all(http: httpx2.AsyncClient, url: str, book: Book) -> None:
    """Returns when all of the book is acknowledged. Raises AssertionError where a span is rejected."""
    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS):
            senders.create_task(_send(http, url, book))


async def _send(http: httpx2.AsyncClient, url: str, book: Book) -> None:
    while spans := book.take():
        for first in range(0, len(spans), BATCH):
            some = spans[first : first + BATCH]
            data = body(some)
            await post(http, url, data, book)
            book.acknowledged.update(span.trace for span in some)
            if book.is_repeated():
                book.repeats += 1
                await post(http, url, data, book)


async def post(http: httpx2.AsyncClient, url: str, data: bytes, book: Book) -> None:
    """Sends a request until it is acknowledged."""
    while True:
        try:
            answer = await http.post(
                f"{url}/v1/traces", content=data, headers={"Content-Type": "application/x-protobuf"}
            )
        except httpx2.HTTPError:
            book.failures += 1
        else:
            if answer.status_code == 200:
                assert not answer.content, f"spans were rejected: {answer.content!r}"
                book.requests += 1
                return
            assert answer.status_code == 503, f"{answer.status_code}: {answer.text[:500]}"
            book.failures += 1
        await asyncio.sleep(PAUSE_S)
