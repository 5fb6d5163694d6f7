"""Writes the tree of a run for other programs: the rows of its outline, with the data of each attempt."""

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Literal

import msgspec

from runglass import __version__
from runglass.engine.scheduling.offloading import offload
from runglass.engine.scheduling.pacing import paced_read
from runglass.log.trace import RunSummary, StepTrace
from runglass.run_files.otlp import OtlpWriter
from runglass.run_files.outline_rows import TreeRow, tree_rows
from runglass.run_files.perfetto import PerfettoWriter
from runglass.server.services.outlines import Outlines
from runglass.server.services.run_content import whole_summary, with_content
from runglass.store.base import Store, decoding
from runglass.store.records import AttemptKey, RunRecord

PAGE_ROWS = 1000
PAGE_BYTES = 256 * 1024
"""About so much of the data of attempts is in memory at a time."""

_steps = msgspec.json.Decoder(StepTrace)


async def parts(
    store: Store, outlines: Outlines, run: RunRecord, format: Literal["otlp", "perfetto"]
) -> AsyncGenerator[bytes, None]:
    """The parts of the file. Raises RunUnreadable, RunPurged, StoreError."""
    with decoding(run.id):
        whole = whole_summary(await with_content(store, run))
        summary = msgspec.json.decode(whole, type=RunSummary)
        writer = OtlpWriter(summary, version=__version__) if format == "otlp" else PerfettoWriter(summary)
    outline = await outlines.of(run)
    yield writer.opening()
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
    yield writer.closing()


def _with_data(rows: Sequence[TreeRow], count: int) -> Sequence[TreeRow]:
    """The first rows, up to the first one behind so many that show an attempt."""
    for number, row in enumerate(rows):
        if row.position:
            if not count:
                return rows[:number]
            count -= 1
    return rows


def _written(
    run: RunRecord, writer: OtlpWriter | PerfettoWriter, rows: Sequence[TreeRow], data: Sequence[bytes]
) -> bytes:
    steps = iter(data)
    with decoding(run.id):
        return writer.rows([(row, _steps.decode(next(steps)) if row.position else None) for row in rows])
