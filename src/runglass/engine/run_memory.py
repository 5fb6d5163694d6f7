"""The outputs that a segment of a run holds in memory, within what its process has (`limits/memory.py`).

Large outputs are held as JSON. Beyond `run_memory_bytes` of a run, and beyond `memory_limit_bytes` of all of
them, the oldest are evicted: their checkpoints are in the store, and they are read back where a step mentions
them. Knows nothing of flows.
"""

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar

from runglass.engine.payload import Payload
from runglass.errors import StepFailure
from runglass.limits.memory import COUNTED_BYTES, OBJECTS_PER_BYTE, MemoryBudget
from runglass.limits.offload import offload

T = TypeVar("T")


class _Ref(weakref.ref[Payload]):
    """A payload that is held and may be evicted."""

    __slots__ = ("memory", "size")

    memory: "RunMemory"
    size: int

    def evict(self) -> None:
        payload = self()
        if payload is not None and payload.holding is not None and not payload.holding.users:
            payload.put_away()
            self.memory.forget(self)


class RunMemory:
    """The outputs that one segment of a run holds. `read` gets a checkpoint back from the store."""

    __slots__ = ("_closed", "_held", "_memory", "_project_id", "_read", "_refs")

    def __init__(
        self,
        memory: MemoryBudget,
        read: Callable[[tuple[str, str]], Awaitable[bytes]],
        *,
        project_id: int = 0,
    ) -> None:
        self._memory = memory
        self._project_id = project_id
        self._read = read
        self._held = 0
        self._refs: dict[_Ref, None] = {}
        self._closed = False

    def close(self) -> None:
        """The segment is over: nothing of it is held any more."""
        self._closed = True
        for ref in self._refs:
            del self._memory.evictable[ref]
        self._refs.clear()
        self.hold(-self._held)

    def hold_inputs(self, request_bytes: int) -> None:
        """Counts the inputs of the run, which stay in memory as objects as long as it goes on."""
        if request_bytes >= COUNTED_BYTES:
            self.hold(request_bytes * OBJECTS_PER_BYTE)

    def hold(self, size: int) -> None:
        """Counts bytes that cannot be put away; less than 0 takes them back."""
        self._held += size
        self._memory.hold(size, self._project_id)

    def require_room(self, size: int, *, step_id: str) -> None:
        """Raises StepFailure where the process has no room for so many bytes more."""
        if not self._memory.has_room(size, project_id=self._project_id):
            limit = self._memory.limit_bytes
            raise StepFailure(
                "RUN_LIMIT",
                f"step {step_id!r} adds {size:,} bytes to what the runs of this server hold in memory,"
                f" {self._memory.held:,}; they may hold {limit:,} (setting memory_limit_bytes)",
                details={"limit": "memory", "value": limit, "setting": "memory_limit_bytes"},
            )

    def keep(self, payload: Payload, address: tuple[str, str]) -> None:
        """Holds a payload whose checkpoint has been recorded as JSON, and puts others away for it."""
        if payload.size_bytes < COUNTED_BYTES or self._closed:
            return
        holding = payload.slim()
        # The output of a step that passes its input on is held already.
        if holding.address is None:
            holding.address = address
            self._hold_payload(payload, holding.size)

    def _hold_payload(self, payload: Payload, size: int) -> None:
        ref = _Ref(payload, _forget)
        ref.memory, ref.size = self, size
        self._refs[ref] = self._memory.evictable[ref] = None
        self.hold(size)
        for older in list(self._refs):
            # The newest stays: it is the input of the next step.
            if self._held <= self._memory.run_bytes or older is ref:
                break
            older.evict()
        self._memory.has_room(0)

    def forget(self, ref: _Ref) -> None:
        if ref in self._refs:
            del self._refs[ref], self._memory.evictable[ref]
            self.hold(-ref.size)

    @asynccontextmanager
    async def using(self, payloads: Sequence[Payload], *, decoded: bool = True) -> AsyncIterator[ExitStack]:
        """Inside the block all of these are in memory. With `decoded` their values are going to be made."""
        holdings = [payload.holding for payload in payloads if payload.holding is not None]
        async with self._memory.working(sum(each.size for each in holdings) if decoded else 0) as room:
            for holding in holdings:
                holding.users += 1
            try:
                for payload in payloads:
                    await self._bring_back(payload)
                yield room
            finally:
                for holding in holdings:
                    holding.users -= 1

    async def without(self, payload: Payload, work: Awaitable[T]) -> T:
        """The result of `work`, which takes long and does not need the payload that is used around it."""
        holding = payload.holding
        if holding is None:
            return await work
        holding.users -= 1
        try:
            return await work
        finally:
            holding.users += 1
            await self._bring_back(payload)

    async def _bring_back(self, payload: Payload) -> None:
        """Reads the payload from the store, if it is there. Raises StoreError."""
        while (holding := payload.holding) is not None and holding.away:
            assert holding.address is not None
            data = await self._read(holding.address)
            # Another step of the run may have been faster.
            if holding.away:
                payload.bring_back(data)
                self._hold_payload(payload, holding.size)


def _forget(ref: weakref.ref[Payload]) -> None:
    assert isinstance(ref, _Ref)
    ref.memory.forget(ref)


async def value_of(payload: Payload) -> dict[str, Any] | None:
    """The payload's value; a large one is decoded in a thread."""
    if payload.holding is None:
        return payload.value
    return await offload(lambda: payload.value, size_bytes=payload.holding.size)
