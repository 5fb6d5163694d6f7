"""The outputs that runs hold in memory: counted in bytes, and bounded for each run and for the process.

Large outputs are held as JSON. Beyond `run_memory_bytes` of a run, and beyond `memory_limit_bytes` of all of
them, the oldest are put away: their checkpoints are in the store, and they are read back where a step
mentions them. Values that steps decode while they go on are bounded apart from that. Knows nothing of flows.
"""

import asyncio
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from runglass.engine.payload import LARGE_BYTES, Payload
from runglass.engine.scheduling.offloading import offload
from runglass.errors import StepFailure, api_error

T = TypeVar("T")

OBJECTS_PER_BYTE = 8
"""About how many bytes of Python objects a byte of JSON becomes: texts 1, lists of small objects up to 25."""


BEYOND = 2
"""So many times the limit all projects may hold where one that holds little is let in."""


class _Ref(weakref.ref[Payload]):
    """A payload that is held and may be put away."""

    __slots__ = ("memory", "size")

    memory: "RunMemory"
    size: int


class MemoryBudget:
    """The memory that all runs of a process hold, with its bounds."""

    def __init__(self, *, limit_bytes: int = 1 << 30, run_bytes: int = 8 << 20) -> None:
        self.limit_bytes = limit_bytes
        self.run_bytes = run_bytes
        self.held = 0
        """Bytes of JSON, and of inputs as objects."""
        self._held_by: Counter[int] = Counter()
        self.refs: dict[_Ref, None] = {}
        self._working = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def working_bytes(self) -> int:
        """The size of the values that are being decoded or encoded."""
        return self._working

    def has_room(self, size: int, *, project_id: int = 0) -> bool:
        """Whether the project can hold so many bytes more, once all has been put away that can be.

        One below its equal share of the limit can, though others hold all: up to twice the limit altogether.
        """
        if self.held + size <= self.limit_bytes:
            return True
        self._put_away(self.limit_bytes - size)
        own = self._held_by[project_id]
        share = self.limit_bytes / (len(self._held_by) + (not own))
        most = BEYOND * self.limit_bytes if own + size <= share else self.limit_bytes
        return self.held + size <= most

    def hold(self, size: int, project_id: int) -> None:
        """Counts bytes of a project; less than 0 takes them back."""
        self.held += size
        self._held_by[project_id] += size
        if not self._held_by[project_id]:
            del self._held_by[project_id]

    @contextmanager
    def starting(self, request_bytes: int, *, project_id: int = 0) -> Iterator[None]:
        """Inside the block a run with such a request is started. Raises UNAVAILABLE where there is no room.

        One alone is always taken.
        """
        size = request_bytes * OBJECTS_PER_BYTE if request_bytes >= LARGE_BYTES else 0
        if size and self.held and not self.has_room(size, project_id=project_id):
            raise api_error(
                "UNAVAILABLE",
                f"the runs of this server hold {self.held:,} bytes in memory, and there is no room for a"
                f" request of {request_bytes:,}; they may hold {self.limit_bytes:,} (setting"
                " memory_limit_bytes); nothing was started, try again later",
                details={"limit": "memory_limit_bytes", "value": self.limit_bytes},
            )
        self.hold(size, project_id)
        try:
            yield
        finally:
            self.hold(-size, project_id)

    def _put_away(self, limit: int) -> None:
        for ref in list(self.refs):
            if self.held <= limit:
                return
            ref.memory.put_away(ref)

    @asynccontextmanager
    async def working(self, json_bytes: int) -> AsyncIterator[ExitStack]:
        """Inside the block so much JSON may be decoded; waits while others have too much in work.

        A task that is alone is always let in, and none inside waits for another: there is no deadlock. A task
        that is done before the block ends closes what it gets, which gives the room back at once.
        """
        size = json_bytes * OBJECTS_PER_BYTE
        if json_bytes < LARGE_BYTES:
            yield ExitStack()
            return
        if self._waiting or not self._fits(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                # The turn may have come at the very moment of the cancellation.
                if turn.done() and not turn.cancelled():
                    self._leave(size)
                raise
        else:
            self._working += size
        with ExitStack() as room:
            room.callback(self._leave, size)
            yield room

    def _fits(self, size: int) -> bool:
        return not self._working or self._working + size <= self.limit_bytes

    def _leave(self, size: int) -> None:
        self._working -= size
        while self._waiting:
            following, turn = self._waiting[0]
            if not turn.done():
                if not self._fits(following):
                    return
                self._working += following
                turn.set_result(None)
            self._waiting.popleft()


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
            del self._memory.refs[ref]
        self._refs.clear()
        self.hold(-self._held)

    def hold_inputs(self, request_bytes: int) -> None:
        """Counts the inputs of the run, which stay in memory as objects as long as it goes on."""
        if request_bytes >= LARGE_BYTES:
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
        if payload.size_bytes < LARGE_BYTES or self._closed:
            return
        holding = payload.slim()
        # The output of a step that passes its input on is held already.
        if holding.address is None:
            holding.address = address
            self._hold_payload(payload, holding.size)

    def _hold_payload(self, payload: Payload, size: int) -> None:
        ref = _Ref(payload, _forget)
        ref.memory, ref.size = self, size
        self._refs[ref] = self._memory.refs[ref] = None
        self.hold(size)
        for older in list(self._refs):
            # The newest stays: it is the input of the next step.
            if self._held <= self._memory.run_bytes or older is ref:
                break
            self.put_away(older)
        self._memory.has_room(0)

    def put_away(self, ref: _Ref) -> None:
        payload = ref()
        if payload is not None and payload.holding is not None and not payload.holding.users:
            payload.put_away()
            self.forget(ref)

    def forget(self, ref: _Ref) -> None:
        if ref in self._refs:
            del self._refs[ref], self._memory.refs[ref]
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
                    await self.bring_back(payload)
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
            await self.bring_back(payload)

    async def bring_back(self, payload: Payload) -> None:
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
