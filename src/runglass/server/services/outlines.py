"""The outlines of runs: made of what the store has, off the event loop, and held for a while.

A caller reads a long outline in pages, and each page needs all of it: it is made once. That of a run that
goes on is made again once something has happened, unless the caller asks for more of the one it began with.
That of a large run that has ended is kept in the store. Who cannot wait for that of a long run gets one of
its beginning and its end first.

More than 300 lines: what makes an outline, holds it and keeps it.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import msgspec

from runglass.errors import RunPurged, RunUnreadable, StoreError
from runglass.flows.flow import ConditionStep, Flow, LoopStep, ParallelStep, Step
from runglass.limits.memory import SHARE
from runglass.limits.offload import offload, offload_in_turn
from runglass.limits.pace import current_project, paced_read, paced_write
from runglass.outlines.builder import AttemptRow, Node, OutlineBuilder
from runglass.outlines.kept_outline import is_of_version_before, pack, unpack
from runglass.outlines.outline import SLICE_ROWS, Kind, Outline
from runglass.outlines.span_builder import SpanOutlineBuilder
from runglass.runtime.runtime import Runtime
from runglass.server.services.run_content import read_flow
from runglass.store.base import Store, decoding, summary_of
from runglass.store.records import LARGE_RUN_EVENTS, RunRecord
from runglass.support.clock import Clock
from runglass.support.logs import FailureLog

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""So often it is looked whether an outline is due; after one that took longer, as long as that took."""
CLAIM_S = 30.0
"""So long other servers on the store leave it to this one, from each time that it looks."""
PAGE_BYTES = 1 << 20
"""About how much is read at a time of a run that has ended."""
MOMENT_BYTES = 32 << 20
"""About how much of a run that goes on is read at one moment; what comes after that is of a later one."""
PIECE_ROWS = 2000
"""Attempts that are taken in at a time, which takes some milliseconds."""
RECENT_PART = 20
"""An outline that lacks this part of the events is brought up to date by them sooner than it is made anew."""
TOP = -1
"""The parent of the nodes at the top of a flow."""
LOG_BYTES_PER_BYTE = 16
"""So many bytes of a log count as one that is decoded: its rows take less than half of them."""

Builder: TypeAlias = OutlineBuilder | SpanOutlineBuilder


class _Held(NamedTuple):
    """An outline, and the digest of the nodes that it was made with."""

    outline: Outline
    is_final: bool
    nodes: str


class Outlines:
    """Of one server: makes outlines and holds those that were asked for last, up to `limit_bytes`."""

    def __init__(self, runtime: Runtime, *, limit_bytes: int | None = None) -> None:
        self._runtime = runtime
        if limit_bytes is None:
            limit_bytes = runtime.settings.memory_limit_bytes // SHARE
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._held_bytes = 0
        self._generation = runtime.store.generation
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def of(self, run: RunRecord, *, seq: int | None = None) -> Outline:
        """The outline of a run as it stands, or as it stood after event `seq` where that one is still held.

        Raises RunUnreadable, RunPurged, StoreError.
        """
        return (await self._found(run, seq)).outline

    def recent(self, run: RunRecord) -> Outline | None:
        """One that is held of a long run that goes on, and lacks few events; None if there is none."""
        held = self._held.get(run.no)
        if held is None or run.ended or run.head < self._runtime.limits.long_run_events:
            return None
        return held.outline if run.head - held.outline.seq <= run.head // RECENT_PART else None

    async def ends_of(self, run: RunRecord) -> Outline | None:
        """That of the first and last attempts alone, some hundreds; None where `of` takes no longer.

        Its sums are those of the rows that it has. Raises as `of` does.
        """
        self._drop_outdated()
        held = self._held.get(run.no)
        limits = self._runtime.limits
        if run.head < limits.long_run_events or (held and (held.is_final or held.outline.seq == run.head)):
            return None
        nodes = await self._nodes_of(run)
        kept = await self._kept(run, nodes)
        if kept is not None:
            self._hold(run.no, kept)
            return None
        store = self._runtime.store
        last = await store.last_position(run.no)
        first = partial(store.attempt_page, run.no, after=(0, 0), limit_bytes=limits.ends_bytes)
        _, rows = await paced_read(run.project_id, first)
        # So many that they hardly take more than the first ones, whose data may be smaller.
        about = max(1, last * limits.ends_bytes // run.log_bytes)
        after = max((rows[-1][0], rows[-1][3]), (last - about, 0)) if rows else (0, 0)
        end = partial(store.attempt_page, run.no, after=after, limit_bytes=2 * limits.ends_bytes)
        run, rest = await paced_read(run.project_id, end)
        with decoding(run.id):
            builder = _builder_of(run, nodes, is_partial=True)
            for attempts in (rows, rest):
                await _take_in(builder, attempts)
            *_, outline = builder.finish()
        return outline

    async def keep(self, run: RunRecord) -> None:
        """Keeps the outline of a run that has ended in the store. Raises as `of` does."""
        store, (outline, _, nodes) = self._runtime.store, await self._found(run, None)
        pieces = pack(outline, nodes=nodes)
        parts: list[bytes] = []
        while (part := await offload_in_turn(partial(next, pieces, None))) is not None:
            parts.append(part)
            # The head, which comes last, is part 0.
            number = 0 if len(parts) > -(-outline.row_count // SLICE_ROWS) else len(parts)
            async with paced_write(run.project_id, len(part)):
                await store.keep_outline(run.no, number, part)
        packed = unpack(parts[-1], parts[:-1], nodes=nodes)
        assert packed is not None
        self._hold(run.no, _Held(packed, True, nodes))

    async def _found(self, run: RunRecord, seq: int | None) -> _Held:
        lock = self._locks.setdefault(run.no, asyncio.Lock())
        async with lock:
            self._drop_outdated()
            held = self._held.get(run.no)
            if held is not None and (held.is_final or held.outline.seq in (seq, run.head)):
                self._held.move_to_end(run.no)
                return held
            nodes = await self._nodes_of(run)
            found = await self._kept(run, nodes)
            if found is None:
                memory = self._runtime.engine.limits.memory
                async with memory.working(run.log_bytes // LOG_BYTES_PER_BYTE):
                    found = await self._make(run, nodes)
            self._hold(run.no, found)
            return found

    def _drop_outdated(self) -> None:
        """Lets go of all outlines where the store may have gone back, and runs with it."""
        if self._generation != self._runtime.store.generation:
            self._generation = self._runtime.store.generation
            self._held.clear()
            self._held_bytes = 0

    async def _kept(self, run: RunRecord, nodes: Sequence[Node]) -> _Held | None:
        """The outline as the store keeps it, if it does."""
        if not run.ended or run.head < LARGE_RUN_EVENTS:
            return None
        parts = await paced_read(run.project_id, partial(self._runtime.store.kept_outline, run.no))
        if not parts:
            return None
        digest = _digest(nodes)
        work = partial(unpack, parts[0], parts[1:], nodes=digest)
        try:
            outline = await offload(work, size_bytes=sum(map(len, parts)))
        except (msgspec.MsgspecError, ValueError, LookupError) as error:
            log.warning("the kept outline of run %r cannot be read and is recomputed: %s", run.id, error)
            return None
        if outline is None and is_of_version_before(parts[0]):
            # Kept by an older program, which went on beside this one for a while.
            try:
                await self._runtime.store.renew_outline(run.no)
            except StoreError as error:
                log.warning("the recomputed outline of run %r is not kept: %s", run.id, error)
        return None if outline is None else _Held(outline, True, digest)

    async def _make(self, run: RunRecord, nodes: Sequence[Node]) -> _Held:
        store = self._runtime.store
        limit = PAGE_BYTES if run.ended else MOMENT_BYTES
        first = partial(store.attempt_page, run.no, after=(0, 0), limit_bytes=limit)
        run, rows = await paced_read(run.project_id, first, size_bytes=run.log_bytes)
        with decoding(run.id):
            builder = _builder_of(run, nodes)
            if sum(len(row[-1]) for row in rows) < limit:
                await _take_in(builder, rows)
            else:
                await self._take_in_all(builder, run, rows)
            slices = builder.finish()
            outline = None
            while outline is None:
                outline = await offload(partial(next, slices), size_bytes=builder.size_bytes)
        return _Held(outline, run.ended, _digest(nodes))

    async def _take_in_all(self, builder: Builder, run: RunRecord, rows: list[AttemptRow]) -> None:
        """Takes in pages from the one that has been read on; the next one is read meanwhile."""
        while rows:
            after = (rows[-1][0], rows[-1][3])
            async with asyncio.TaskGroup() as both:
                read = partial(self._runtime.store.attempt_page, run.no, after=after, limit_bytes=PAGE_BYTES)
                following = both.create_task(paced_read(run.project_id, read))
                both.create_task(_take_in(builder, rows))
            _, rows = following.result()

    async def _nodes_of(self, run: RunRecord) -> Sequence[Node]:
        """The nodes of the flow that the run is of: of a draft as it is now. A recorded run has none."""
        return () if run.is_recorded else await read_flow(self._runtime.store, run, flow_nodes) or ()

    def _hold(self, run_no: int, made: _Held) -> None:
        before = self._held.pop(run_no, None)
        if before is not None:
            self._held_bytes -= before.outline.size_bytes
        self._held[run_no] = made
        self._held_bytes += made.outline.size_bytes
        while self._held_bytes > self._limit_bytes:
            _, oldest = self._held.popitem(last=False)
            self._held_bytes -= oldest.outline.size_bytes


async def keep_outlines(store: Store, outlines: Outlines, clock: Clock) -> None:
    """Keeps outlines of large runs that have ended, one after the other, until it is cancelled.

    So whoever opens such a run does not wait. Each is made at the pace of its project. A store that fails is
    tried again.
    """
    failures = FailureLog(log, "keeping the outlines of runs that have ended failed")
    while True:
        since_s = clock.monotonic_s()
        with failures:
            if await store.claim_maintenance("outlines", for_s=CLAIM_S):
                await _keep_next(store, outlines)
        # Others have half of the time at least, also those of the same project.
        await clock.sleep(max(INTERVAL_S, clock.monotonic_s() - since_s))


async def _keep_next(store: Store, outlines: Outlines) -> None:
    """Keeps the outline that is due first, if one is. Raises StoreError."""
    run = await store.due_outline()
    if run is None:
        return
    current_project.set(run.project_id)
    try:
        await outlines.keep(run)
    except RunPurged:
        log.debug("run %r was deleted while its outline was made", run.id)
    except RunUnreadable as error:
        log.warning("no outline is kept: %s", error)
        await store.pass_over_outline(run.no)


def _digest(nodes: Sequence[Node]) -> str:
    return hashlib.blake2b(msgspec.json.encode(nodes), digest_size=16).hexdigest()


def _builder_of(run: RunRecord, nodes: Sequence[Node], *, is_partial: bool = False) -> Builder:
    start = summary_of(run)
    if run.is_recorded:
        entry = start.recording.entry_span_id if start.recording else None
        return SpanOutlineBuilder(
            started_at=start.started_at, seq=run.head, entry=entry, is_partial=is_partial
        )
    return OutlineBuilder(nodes, started_at=start.started_at, seq=run.head, is_paused=run.status == "paused")


async def _take_in(builder: Builder, rows: Sequence[AttemptRow]) -> None:
    for first in range(0, len(rows), PIECE_ROWS):
        piece = rows[first : first + PIECE_ROWS]
        size = sum(len(row[-1]) for row in piece)
        await offload(partial(builder.add, piece), size_bytes=size)


def flow_nodes(flow: Flow) -> list[Node]:
    """A node for each step and each branch, in document order: parents before what is inside of them."""
    nodes: list[Node] = []
    _add(nodes, flow.steps, TOP)
    return nodes


def _add(nodes: list[Node], steps: list[Step], parent: int) -> None:
    for step in steps:
        number = len(nodes)
        kind: Kind = "step"
        branches: dict[str, list[Step]] = {}
        match step:
            case LoopStep():
                kind = "loop"
            case ConditionStep():
                kind, branches = "condition", {"then": step.then, "else": step.else_}
            case ParallelStep():
                kind, branches = "parallel", step.branches
        nodes.append(Node(step.id, step.id, kind, parent))
        if isinstance(step, LoopStep):
            _add(nodes, step.steps, number)
        for name, inside in branches.items():
            if inside:
                nodes.append(Node(None, name, "branch", number))
                _add(nodes, inside, len(nodes) - 1)
