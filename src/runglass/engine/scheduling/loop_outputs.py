"""The outputs that a loop gathers and those of parallel branches, and the one output that they become.

A loop may gather hundreds of thousands. They are held as JSON, which the loop's own output is joined from.
"""

from collections.abc import Mapping
from functools import partial
from typing import Self

from runglass.engine.payload import LARGE_BYTES, Payload, branches_of, items_of
from runglass.engine.scheduling.memory_budget import RunMemory
from runglass.engine.scheduling.offloading import offload, yield_to_others
from runglass.errors import StepFailure
from runglass.support.json_weight import weighs_more

MOST_JOINED = 5_000_000
"""Values that a container may join to one output: some 0.4 s to read."""


async def require_values(output: Payload, *, step_id: str) -> None:
    """Raises StepFailure where the output of a container, which is in memory, has too many values."""
    data = output.json
    if await offload(partial(weighs_more, data, MOST_JOINED, between=yield_to_others), size_bytes=len(data)):
        raise StepFailure(
            "RUN_LIMIT",
            f"the outputs inside of step {step_id!r} take as long to be read"
            f" as more than {MOST_JOINED:,} values",
            may_retry=False,
            details={"limit": "values", "value": MOST_JOINED},
        )


class LoopOutputs:
    """The last output of each of `count` iterations. A context manager: held outputs are let go of."""

    def __init__(self, memory: RunMemory, step_id: str, count: int) -> None:
        self._memory = memory
        self._step_id = step_id
        # As JSON, but for those that may be put away.
        self._outputs: list[Payload | bytes] = [b"null"] * count
        self._size = 0
        self._held = 0
        self._uncounted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._memory.hold(-self._held)

    def add(self, index: int, output: Payload) -> None:
        """Takes in the output of one iteration. Raises StepFailure where memory is full."""
        if output.holding is not None and output.holding.address is not None:
            self._outputs[index] = output
            self._size += output.holding.size
            return
        data = self._outputs[index] = output.json
        self._size += len(data)
        self._uncounted += len(data)
        if self._uncounted >= LARGE_BYTES:
            self._memory.require_room(self._uncounted, step_id=self._step_id)
            self._memory.hold(self._uncounted)
            self._held, self._uncounted = self._held + self._uncounted, 0

    async def joined(self) -> Payload:
        """The output of the loop."""
        large = [output for output in self._outputs if isinstance(output, Payload)]
        async with self._memory.using(large, decoded=False):
            return Payload.encoded(await offload(partial(items_of, self._outputs), size_bytes=self._size))


async def joined_branches(outputs: Mapping[str, Payload], memory: RunMemory) -> Payload:
    """The output of a parallel step, from the last output of each branch."""
    size = sum(output.size_bytes for output in outputs.values())
    if size < LARGE_BYTES:
        return Payload({name: output.value for name, output in outputs.items()})
    large = [output for output in outputs.values() if output.holding is not None]
    async with memory.using(large, decoded=False):
        return Payload.encoded(await offload(partial(branches_of, outputs), size_bytes=size))
