"""The bus of several processes: listeners here are woken at once, other processes by what carries texts.

What is woken within `join_s` travels as one text. A process hears its own texts, too: if one does not come
back, the connection is dead without a word, or something stands between that lets nothing through, and it
is made anew. After a gap all listeners look, here, and in other processes where texts are left to be sent.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from runglass.bus.base import Bus, Listener
from runglass.bus.carrier import ALL, KEY_LENGTH, MOST_KEYS, BusAway, Carrier, Send, key_of

log = logging.getLogger(__name__)

JOIN_S = 0.01
ECHO_S = 5.0
"""A text that has not come back by then is lost; and without wake-ups, an empty one is sent as often."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
SILENT_PAUSE_S = 60.0
"""Before another try where no text has ever come back."""
FAREWELL_S = 1.0
"""How long the last wake-ups of a process may take."""


class NothingHeard(BusAway):
    """No text has ever come back, over no connection."""


class ProcessBus(Bus):
    """Wakes listeners in this process, and over `carrier` those in others while `run_forever` runs."""

    def __init__(self, carrier: Carrier, *, join_s: float = JOIN_S, echo_s: float = ECHO_S) -> None:
        super().__init__()
        self._carrier = carrier
        self._join_s = join_s
        self._echo_s = echo_s
        self._unsent: set[str] = set()
        self._own_key = key_of(secrets.token_hex(16))
        self._stirred = asyncio.Event()
        self._lost: str | None = None
        self._unheard_since: float | None = None
        self._has_heard = False
        self.is_connected = False

    async def wake(self, subject: str) -> None:
        key = key_of(subject)
        self.wake_here(key)
        self._queue(key)
        self._stirred.set()

    @asynccontextmanager
    async def listen(self, subject: str) -> AsyncIterator[Listener]:
        async with super().listen(key_of(subject)) as listener:
            yield listener

    async def run_forever(self) -> None:
        """Carries wake-ups until this is cancelled; then the last ones are sent, if that takes no second."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._lost, self._unheard_since = None, None
            try:
                async with self._carrier.connect(hear=self._hear, lost=self._lose) as send:
                    try:
                        await self._carry(send)
                    except asyncio.CancelledError:
                        await self._say_farewell(send)
                        raise
            except BusAway as error:
                pause_s = FIRST_PAUSE_S if self.is_connected else min(pause_s * 2, LONGEST_PAUSE_S)
                if self._unheard_since is not None:
                    # Whether others have heard the last texts is not known.
                    self._queue(ALL)
                if self.fault is None:
                    log.warning("the bus is unavailable, readers poll the store: %s", error)
                self.fault = "wake-ups of other processes do not come, so what they do is noticed late"
                self.is_connected = False
                await asyncio.sleep(SILENT_PAUSE_S if isinstance(error, NothingHeard) else pause_s)

    async def _carry(self, send: Send) -> None:
        """Sends what is to be sent, and an empty text now and then. Raises BusAway."""
        loop = asyncio.get_running_loop()
        while True:
            if self._lost is not None:
                raise BusAway(self._lost)
            if self._unheard_since is None:
                self._unheard_since = loop.time()
            elif loop.time() - self._unheard_since >= self._echo_s:
                name = self._carrier.name
                if self._has_heard:
                    raise BusAway(f"{name} has not sent back a wake-up for {self._echo_s:g} s")
                raise NothingHeard(
                    f"{name} takes wake-ups and passes none on, as a pooler does that hands out connections"
                    " for one transaction each; set RUNGLASS_BUS to an address of the database without the"
                    " pooler"
                )
            self._stirred.clear()
            keys, self._unsent = self._unsent, set()
            try:
                await send(self._text_of(keys))
            except (BusAway, asyncio.CancelledError):
                self._queue(*keys)
                raise
            await asyncio.sleep(self._join_s)
            try:
                async with asyncio.timeout(self._echo_s):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    async def _say_farewell(self, send: Send) -> None:
        if self._unsent and self._lost is None:
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await send(self._text_of(self._unsent))
            except (BusAway, TimeoutError) as error:
                log.info("the last wake-ups of this process were not sent: %s", error)

    def _queue(self, *keys: str) -> None:
        """Has the keys sent, each once; where one text has no room for all, a wake-up of all listeners."""
        self._unsent.update(keys)
        if ALL in self._unsent or len(self._unsent) > MOST_KEYS:
            self._unsent = {ALL}

    def _text_of(self, keys: Iterable[str]) -> str:
        return self._own_key + "".join(keys)

    def _hear(self, text: str) -> None:
        # What no bus has written may be long, and wakes nobody.
        sender, keys = text[:KEY_LENGTH], text[KEY_LENGTH : KEY_LENGTH * (MOST_KEYS + 1)]
        if sender == self._own_key:
            self._unheard_since = None
            if not self.is_connected:
                self.fault, self.is_connected, self._has_heard = None, True, True
                # What was woken elsewhere meanwhile is not known.
                self.wake_all()
                log.info("wake-ups are carried by %s", self._carrier.name)
        elif keys == ALL:
            self.wake_all()
        else:
            for start in range(0, len(keys), KEY_LENGTH):
                self.wake_here(keys[start : start + KEY_LENGTH])

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._stirred.set()
