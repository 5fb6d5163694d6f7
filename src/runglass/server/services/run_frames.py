"""Runs of a list as they are sent: one as JSON, and those that change as server-sent events."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from runglass.log.fold import DAMAGE
from runglass.log.trace import RunSummary
from runglass.store.list_records import ChangedRun, RunListing
from runglass.tails.run_list import ListPage
from runglass.wire.sse import frame, position_frame

log = logging.getLogger(__name__)


class RunFrames(NamedTuple):
    """A part of the stream; nothing where nothing has changed for a while."""

    frames: bytes


async def framed_runs(
    pages: AsyncGenerator[ListPage, None], *, after: int
) -> AsyncGenerator[RunFrames, None]:
    """The pages as parts of a stream, which can be resumed from its first moment on, after number `after`."""
    yield RunFrames(position_frame(after))
    last = after
    async with aclosing(pages):
        async for page in pages:
            parts = [_frame(each) for each in page.changed]
            # What concerns others moves the position, too, or whoever comes back would go through it again.
            if page.last != last and (not parts or page.changed[-1].number != page.last):
                parts.append(position_frame(page.last))
            last = page.last
            yield RunFrames(b"".join(parts))


def listed(run: RunListing) -> bytes:
    """The run's `flowRun`, or what its columns say where that cannot be read."""
    summary = summary_of(run)
    return msgspec.json.encode(summary) if summary.unreadable else run.summary


def summary_of(run: RunListing) -> RunSummary:
    """The run's summary, or what its columns say where that cannot be read: it must not hide other runs."""
    try:
        return _summary.decode(run.summary)
    except DAMAGE as error:
        log.error("the summary of run %s cannot be read: %s", run.id, error)  # noqa: TRY400
    return RunSummary(
        id=run.id,
        flow_id=run.flow_id,
        status=run.status,
        trigger_type=run.trigger_type,
        completed_at=run.ended_at,
        duration_ms=run.duration_ms,
        flow_slug=run.flow_slug,
        version=run.version,
        session_id=run.session_id,
        unreadable=True,
    )


def _frame(changed: ChangedRun) -> bytes:
    if changed.listing is None:
        return frame(changed.number, "gone", msgspec.json.encode({"id": changed.run_id}))
    return frame(changed.number, "run", listed(changed.listing))


_summary = msgspec.json.Decoder(RunSummary)
