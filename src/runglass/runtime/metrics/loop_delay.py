"""How late the event loop is: what everything else in the process is late by."""

import asyncio

from runglass.log.measurements import Histogram

PERIOD_S = 0.25


class LoopDelay:
    """Samples of by how much a sleep on the loop was longer than it was to be."""

    def __init__(self) -> None:
        self.delay_s = Histogram()

    async def watch(self) -> None:
        """Takes samples until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + PERIOD_S
            await asyncio.sleep(PERIOD_S)
            self.delay_s.add(max(0.0, loop.time() - due_s))
