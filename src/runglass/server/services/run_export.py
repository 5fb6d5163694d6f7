"""Writes a run as a file, part by part: no more than a page of it is in memory.

It has the run's events, or for other programs its tree: the rows of its outline, with the data of each
attempt.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from runglass import __version__
from runglass.errors import StoreError
from runglass.limits.offload import offload
from runglass.limits.pace import paced_read
from runglass.log.trace import RunSummary, StepTrace
from runglass.outlines.outline import TreeRow, tree_rows
from runglass.run_files.header import FlowOfRun, RunHeader, lines, members
from runglass.run_files.otlp import OtlpWriter
from runglass.run_files.perfetto import PerfettoWriter
from runglass.server.services.outlines import Outlines
from runglass.server.services.run_content import checked_objects, step_pages, whole_summary, with_content
from runglass.store.base import Store, decoding
from runglass.store.records import AttemptKey, RunRecord
from runglass.store.run_logs import RunLog
from runglass.wire.run_api import ExportFormat

PAGE_BYTES = 256 * 1024
"""About how much is read and sent at a time."""
PAGE_ROWS = 1000
"""Rows of the tree that are written at a time."""

_attempts = msgspec.json.Decoder(StepTrace)


class TreeWriter(Protocol):
    """Writes the rows of one outline, each with the data of its attempt where it has one."""

    def opening(self) -> bytes: ...
    def rows(self, rows: Iterable[tuple[TreeRow, StepTrace | None]], /) -> bytes: ...
    def closing(self) -> bytes: ...


async def parts(
    store: Store, outlines: Outlines, run: RunRecord, format: ExportFormat
) -> AsyncGenerator[bytes, None]:
    """The parts of the file, which are made as they are read. Raises StoreError, RunPurged."""
    if format == "otlp":
        return tree_parts(store, outlines, run, partial(OtlpWriter, version=__version__))
    if format == "perfetto":
        return tree_parts(store, outlines, run, PerfettoWriter)
    header = msgspec.json.encode(await _header_of(store, run))
    if format == "jsonl":
        return _lines(store, run, header)
    return _document(store, run, header)


async def _header_of(store: Store, run: RunRecord) -> RunHeader:
    flow = await store.flow(run.flow_id)
    source = await store.flow_source(run.flow_id, run.version)
    if flow is None:
        raise StoreError(f"flow {run.flow_id!r} of run {run.id!r} is not there")
    return RunHeader(
        run_id=run.id,
        version=run.version,
        capture=run.capture,
        trigger_type=run.trigger_type,
        session_id=run.session_id,
        flow=FlowOfRun(id=flow.id, slug=flow.slug, source=msgspec.Raw(source or b"null")),
    )


async def _lines(store: RunLog, run: RunRecord, header: bytes) -> AsyncGenerator[bytes, None]:
    yield header + b"\n"
    async for events in _events(store, run):
        yield lines(events)


async def _document(store: RunLog, run: RunRecord, header: bytes) -> AsyncGenerator[bytes, None]:
    summary = whole_summary(await with_content(store, run))
    yield b'%b,\n"trace":{"flowRun":%b,"steps":[' % (header[:-1], summary)
    is_first = True
    async for steps in step_pages(store, run):
        yield members(steps, first=is_first)
        is_first = False
    yield b'\n]},\n"events":['
    is_first = True
    async for events in _events(store, run):
        yield members(events, first=is_first)
        is_first = False
    yield b"\n]}\n"


async def _events(store: RunLog, run: RunRecord) -> AsyncGenerator[list[bytes], None]:
    """The events of the run up to its head, in pages."""
    after = 0
    while after < run.head:
        page = partial(store.events, run.no, after=after, limit_bytes=PAGE_BYTES)
        rows = await paced_read(run.project_id, page)
        if not rows or rows[-1][0] != after + len(rows):
            raise StoreError(f"the log of run {run.id!r} has a hole after {after}; restore the store")
        after = rows[-1][0]
        # What has come since the run was looked up belongs to no part of this file.
        yield checked_objects(run, [data for seq, data in rows if seq <= run.head])


async def tree_parts(
    store: Store, outlines: Outlines, run: RunRecord, writer_of: Callable[[RunSummary], TreeWriter]
) -> AsyncGenerator[bytes, None]:
    """What a writer makes of the rows of the run's outline. Raises StoreError, RunPurged, RunUnreadable."""
    with decoding(run.id):
        whole = whole_summary(await with_content(store, run))
        writer = writer_of(msgspec.json.decode(whole, type=RunSummary))
        opening = writer.opening()
    outline = await outlines.of(run)
    yield opening
    for first in range(0, outline.row_count, PAGE_ROWS):
        rows = list(tree_rows(outline, first, PAGE_ROWS))
        while rows:
            keys = [AttemptKey(row.position, "", row.attempt) for row in rows if row.position]
            data: list[bytes] = []
            if keys:
                read = partial(store.attempt_data, run.no, keys, limit_bytes=PAGE_BYTES)
                data = await paced_read(run.project_id, read)
            page = _with_data(rows, len(data))
            written = partial(_written, run, writer, page, data)
            if part := await offload(written, size_bytes=sum(map(len, data)) + 200 * len(page)):
                yield part
            rows = rows[len(page) :]
    with decoding(run.id):
        closing = writer.closing()
    yield closing


def _with_data(rows: Sequence[TreeRow], count: int) -> Sequence[TreeRow]:
    """The first rows, up to the first one behind so many that show an attempt."""
    for number, row in enumerate(rows):
        if row.position:
            if not count:
                return rows[:number]
            count -= 1
    return rows


def _written(run: RunRecord, writer: TreeWriter, rows: Sequence[TreeRow], data: Sequence[bytes]) -> bytes:
    steps = iter(data)
    with decoding(run.id):
        return writer.rows([(row, _attempts.decode(next(steps)) if row.position else None) for row in rows])
