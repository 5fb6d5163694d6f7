"""Imports runs: checks what comes, writes it bit by bit, and makes the run there in one go at its end.

One import of a project goes on at a time, so that what they hold in memory is bounded.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial

import msgspec

from runglass.bus.base import runs_of
from runglass.engine.journal.run_writer import step_rows
from runglass.errors import FlowFileError, RunFileError, StoreError, api_error
from runglass.flows.flow import Flow, decode_flow
from runglass.limits.offload import offload, offload_in_turn
from runglass.limits.pace import paced_write
from runglass.run_files.file_reader import RunFileReader
from runglass.run_files.header import RunHeader
from runglass.run_files.imported_log import ImportedLog
from runglass.runtime.runtime import Runtime
from runglass.store.imports import ImportedFlow, ImportedRun
from runglass.store.records import RECORDED, Project, Retention, RunNumbers, StepRow
from runglass.support.json_weight import too_heavy
from runglass.wire.admin_api import Actor

log = logging.getLogger(__name__)

PIECE_BYTES = 256 * 1024
"""About so many bytes of events are checked, and written, at a time."""


async def import_run(
    runtime: Runtime, project: Project, parts: AsyncGenerator[bytes, None], *, by: Actor
) -> bytes:
    """Imports the run in a file that comes in parts; returns its summary as JSON.

    Raises RunFileError for a file that is no run that has ended, ImportConflict where it cannot be made here,
    RATE_LIMITED beside another import, and UNAVAILABLE where the project is full. Nothing is kept then, nor
    where it is cancelled.
    """
    with runtime.engine.limits.one_import(project.id):
        async with aclosing(parts):
            runtime.require_room(project)
            reader, waiting = RunFileReader(), list[bytes]()
            async for part in parts:
                waiting += await offload_in_turn(partial(reader.feed, part))
                if reader.header is not None:
                    break
            else:
                waiting += await offload_in_turn(reader.close)
            header = reader.header
            if header is None:
                raise RunFileError("the file has no header")
            flow = await _flow_of(runtime, project, header)
            async with _reserved(runtime, project.id, header.run_id) as run_no:
                writer = _ImportWriter(runtime, project, header, run_no)
                await writer.take(waiting)
                async for part in parts:
                    await writer.take(await offload_in_turn(partial(reader.feed, part)))
                await writer.take(await offload_in_turn(reader.close))
                run = writer.finished(flow)
                await runtime.store.finish_import(run, by=by)
    await runtime.bus.wake(runs_of(project.id))
    return run.summary


@asynccontextmanager
async def _reserved(runtime: Runtime, project_id: int, run_id: str) -> AsyncIterator[int]:
    """The number of the run to import. What was written under it is purged where the block fails."""
    reserving = asyncio.ensure_future(runtime.store.begin_import(project_id, run_id))
    try:
        yield await asyncio.shield(reserving)
    except BaseException:
        # Where it was cancelled meanwhile, the number may have been given all the same.
        await asyncio.wait((reserving,))
        if reserving.exception() is None:
            try:
                await runtime.store.abandon_imports(reserving.result())
            except StoreError as error:
                log.warning("the import of run %s is removed at the next start: %s", run_id, error)
            runtime.removal.wake()
        raise


async def _flow_of(runtime: Runtime, project: Project, header: RunHeader) -> ImportedFlow:
    """The flow of the run, checked where it will be made. Raises RunFileError."""
    flow_header, store = header.flow, runtime.store
    if header.trigger_type in RECORDED:
        return ImportedFlow(flow_header.id, flow_header.slug, b"", recorded=True)
    source = bytes(flow_header.source)
    known = await store.flow(flow_header.id)
    stored = None if known is None else await store.flow_source(flow_header.id, header.version)
    if source == b"null":
        if known is None or stored is None or known.project_id != project.id:
            raise RunFileError("the header has no `flow.source`, and the project does not have the flow")
        return ImportedFlow(flow_header.id, flow_header.slug, stored)
    flow = await offload(partial(_read_flow, source), size_bytes=len(source))
    if stored is None:
        try:
            # As a file; what is kept is what was read from JSON, in which U+2028 is a character.
            await runtime.checks.flow_file(
                source, own_providers=runtime.settings.providers, project_id=project.id
            )
        except FlowFileError as error:
            raise RunFileError(f"`flow.source` cannot be used: {error.problems[0].message}") from error
    if flow.slug != flow_header.slug:
        raise RunFileError(f"`flow.source` has the slug {flow.slug!r}, the header {flow_header.slug!r}")
    return ImportedFlow(
        flow_header.id,
        flow_header.slug,
        await offload(flow.encode, size_bytes=len(source)),
        # A flow that is known keeps its own.
        name=flow.name if stored is None else None,
        capture=flow.capture,
        retention=Retention(flow.retention_days, flow.content_retention_days),
    )


def _read_flow(source: bytes) -> Flow:
    if heavy := too_heavy(source):
        raise RunFileError(f"`flow.source` is no flow: {heavy}")
    try:
        return decode_flow(source)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RunFileError(f"`flow.source` is no flow: {error}") from error


class _ImportWriter:
    """A run that is being written."""

    def __init__(self, runtime: Runtime, project: Project, header: RunHeader, run_no: int) -> None:
        self._store = runtime.store
        self._project = project
        self._limit_bytes = runtime.settings.project_data_bytes
        self._header = header
        self._run_no = run_no
        self._log = ImportedLog(header, most_values=runtime.settings.body_values_limit)
        self._log_bytes = 0

    async def take(self, events: Sequence[bytes]) -> None:
        """Checks the events and writes them. Raises RunFileError, UNAVAILABLE."""
        start = 0
        while start < len(events):
            stop, size = start, 0
            while stop < len(events) and size < PIECE_BYTES:
                size += len(events[stop])
                stop += 1
            part, rows = await offload_in_turn(partial(self._checked, events[start:stop]))
            size += sum(len(row.data) for row in rows)
            self._require_room()
            async with paced_write(self._project.id, size):
                await self._store.import_rows(self._run_no, part, rows)
            start = stop

    def finished(self, flow: ImportedFlow) -> ImportedRun:
        """The run, once all of it is written. Raises RunFileError where it has not ended."""
        header, summary = self._header, self._log.summary
        trigger_type, session_id = header.trigger_type, header.session_id
        if header.trigger_type in RECORDED:
            trigger_type, session_id = summary.trigger_type or trigger_type, summary.session_id
        return ImportedRun(
            no=self._run_no,
            id=header.run_id,
            project_id=self._project.id,
            flow=flow,
            version=header.version,
            status=summary.status,
            trigger_type=trigger_type,
            capture=header.capture,
            session_id=session_id,
            head=self._log.head,
            summary=msgspec.json.encode(summary),
            ended_at=self._log.ended_at,
            numbers=RunNumbers.of(summary),
            log_bytes=self._log_bytes,
            trace_id=self._log.trace_id,
        )

    def _checked(self, events: Sequence[bytes]) -> tuple[list[tuple[int, bytes]], list[StepRow]]:
        first_seq = self._log.head + 1
        rows = step_rows(self._log.take(events))
        # A state that goes on is followed by another in its place.
        self._log_bytes += sum(map(len, events))
        self._log_bytes += sum(len(row.data) for row in rows if row.status != "running")
        return list(enumerate(events, first_seq)), rows

    def _require_room(self) -> None:
        if self._project.data_bytes + self._log_bytes > self._limit_bytes:
            raise api_error(
                "UNAVAILABLE",
                f"the runs of project {self._project.org}/{self._project.name} may take"
                f" {self._limit_bytes:,} bytes (setting project_data_bytes), and this run is larger than what"
                " is left; nothing was imported",
            )
