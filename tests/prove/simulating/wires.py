"""The bus between simulated processes: wake-ups that are lost, come late, or come again.

Within a process they are heard at once, as with every bus. What they are about is not known here.
"""

from collections import Counter
from contextvars import Context
from functools import partial
from random import Random

from runglass.bus.process_bus import MemoryBus
from tests.prove.simulating.virtual import VirtualLoop

LATE_S = (0.001, 0.3, 5.0, 60.0)


class Wires:
    """What all processes of a world are connected by; `share` of the wake-ups between them goes wrong."""

    def __init__(self, loop: VirtualLoop, chance: Random, seen: Counter[str]) -> None:
        self.share = chance.choice((0.0, 0.1, 0.5, 1.0))
        self._loop = loop
        self._chance = chance
        self._seen = seen
        self._buses: list[ProcessBus] = []

    def bus(self) -> "ProcessBus":
        """The bus of one more process."""
        bus = ProcessBus(self)
        self._buses.append(bus)
        return bus

    def unplug(self, bus: "ProcessBus") -> None:
        """Nothing comes to the process any more."""
        self._buses.remove(bus)

    def carry(self, subject: str, sender: "ProcessBus") -> None:
        """Brings a wake-up to all other processes, in its own way to each."""
        for bus in self._buses:
            if bus is sender:
                continue
            wakes = partial(bus.hear, subject)
            delays: tuple[float, ...] = (0.0,)
            if self._chance.random() < self.share:
                what = self._chance.choice(("lost", "late", "repeated"))
                self._seen[f"wake-ups: {what}"] += 1
                late_s = self._chance.choice(LATE_S)
                delays = {"lost": (), "late": (late_s,), "repeated": (0.0, late_s)}[what]
            for delay_s in delays:
                # In no process: what is on its way is not stopped with its sender.
                self._loop.call_later(delay_s, wakes, context=Context())


class ProcessBus(MemoryBus):
    """The bus as one process has it."""

    def __init__(self, wires: Wires) -> None:
        super().__init__()
        self._wires = wires

    async def wake(self, subject: str) -> None:
        await super().wake(subject)
        self._wires.carry(subject, self)

    def hear(self, subject: str) -> None:
        """Takes a wake-up that comes from another process."""
        self.wake_here(subject)
