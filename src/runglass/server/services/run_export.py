"""Writes a run as a file, part by part: no more than a page of it is in memory."""

from collections.abc import AsyncGenerator
from functools import partial

import msgspec

from runglass.engine.scheduling.pacing import paced_read
from runglass.errors import RunUnreadable, StoreError
from runglass.run_files.header import FlowOfRun, RunHeader, lines, members
from runglass.server.services.run_content import whole_summary, with_content
from runglass.store.base import Store
from runglass.store.records import RunRecord
from runglass.wire.run_api import ExportFormat

PAGE_BYTES = 256 * 1024
"""About how much is read and sent at a time."""


async def parts(store: Store, run: RunRecord, format: ExportFormat) -> AsyncGenerator[bytes, None]:
    """The parts of the file, which are made as they are read. Raises StoreError, RunPurged."""
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


async def _lines(store: Store, run: RunRecord, header: bytes) -> AsyncGenerator[bytes, None]:
    yield header + b"\n"
    async for events in _events(store, run):
        yield lines(events)


async def _document(store: Store, run: RunRecord, header: bytes) -> AsyncGenerator[bytes, None]:
    summary = whole_summary(await with_content(store, run))
    yield b'%b,\n"trace":{"flowRun":%b,"steps":[' % (header[:-1], summary)
    is_first = True
    async for steps in _steps(store, run):
        yield members(steps, first=is_first)
        is_first = False
    yield b'\n]},\n"events":['
    is_first = True
    async for events in _events(store, run):
        yield members(events, first=is_first)
        is_first = False
    yield b"\n]}\n"


async def _events(store: Store, run: RunRecord) -> AsyncGenerator[list[bytes], None]:
    """The events of the run up to its head, in pages."""
    after = 0
    while after < run.head:
        page = partial(store.events, run.no, after=after, limit_bytes=PAGE_BYTES)
        rows = await paced_read(run.project_id, page)
        if not rows or rows[-1][0] != after + len(rows):
            raise StoreError(f"the log of run {run.id!r} has a hole after {after}; restore the store")
        after = rows[-1][0]
        # What has come since the run was looked up belongs to no part of this file.
        yield _checked(run, [data for seq, data in rows if seq <= run.head])


async def _steps(store: Store, run: RunRecord) -> AsyncGenerator[list[bytes], None]:
    """The steps of the run's trace, in pages."""
    after = 0
    while True:
        page = partial(store.trace_page, run.no, after=after, limit_bytes=PAGE_BYTES)
        rows = await paced_read(run.project_id, page)
        if not rows:
            return
        yield _checked(run, [data for _, data in rows])
        after = rows[-1][0]


def _checked(run: RunRecord, rows: list[bytes]) -> list[bytes]:
    """The rows. Raises RunUnreadable for one that is no JSON object: it would spoil the whole file."""
    for data in rows:
        if not (data.startswith(b"{") and data.endswith(b"}")):
            raise RunUnreadable(run.id, f"no JSON object begins with {data[:20]!r}")
    return rows
