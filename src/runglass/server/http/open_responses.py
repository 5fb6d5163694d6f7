"""Answers that last, so that the server can end them when it stops, or when their key is revoked.

A stream stays open as long as its run, and a blocking call as long as its flow; neither may hold up a
shutdown, or outlive the right to ask. Each says here how to end it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runglass.errors import StoreError
from runglass.store.base import Store

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often the store is asked for revoked keys while answers last: whoever left must be gone in a second."""
ENDED_AT_ONCE = 25
"""So many answers end in one turn of the loop, which others have to wait for."""


class OpenResponses:
    """The answers that are being given and take their time."""

    def __init__(self) -> None:
        self._ends: dict[Callable[[], object], int | None] = {}
        self._stopping = False
        self._revoked: set[int] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._some_last = asyncio.Event()

    @contextmanager
    def ended_by(self, end: Callable[[], object], *, key_id: int | None = None) -> Iterator[None]:
        """Inside the block, a stopping server calls `end`, and so does the revocation of the key.

        At once if it is stopping already, or the key revoked.
        """
        if self._stopping or self.is_revoked(key_id):
            end()
        self._ends[end] = key_id
        self._none_left.clear()
        if key_id is not None:
            self._some_last.set()
        try:
            yield
        finally:
            self._ends.pop(end, None)
            if not self._ends:
                self._none_left.set()
                self._some_last.clear()

    @property
    def is_stopping(self) -> bool:
        """Whether the answers that last have been ended because the server stops."""
        return self._stopping

    def is_revoked(self, key_id: int | None) -> bool:
        """Whether the key was found to be revoked while answers to it lasted."""
        return key_id in self._revoked

    async def settle(self, seconds: float) -> None:
        """Returns when the answers that last have ended by themselves, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none_left.wait()

    def end_all(self) -> None:
        """Ends every answer that lasts, and from now on each new one."""
        self._stopping = True
        for end in list(self._ends):
            end()

    async def end_key(self, key_id: int) -> None:
        """Ends every answer to a key that is revoked, and from now on each new one."""
        self._revoked.add(key_id)
        ends = [end for end, of_key in self._ends.items() if of_key == key_id]
        for number, end in enumerate(ends, 1):
            if end in self._ends:
                end()
            if number % ENDED_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def watch(self, store: Store) -> None:
        """Ends the answers to keys that are revoked, in whatever process, until cancelled.

        Asks what is true now and not what has changed: so no revocation falls between two looks. A store that
        fails is asked again.
        """
        fails = False
        while True:
            await self._some_last.wait()
            await asyncio.sleep(LOOK_S)
            keys = {key_id for key_id in self._ends.values() if key_id is not None} - self._revoked
            try:
                revoked = keys - await store.live_keys(keys)
            except StoreError as error:
                if not fails:
                    log.warning("whether keys are revoked cannot be told for now: %s", error)
                fails = True
                continue
            fails = False
            for key_id in revoked:
                await self.end_key(key_id)
