"""Runs of a list as they are sent: one as JSON, and those that change as server-sent events."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from runglass.list_tail import ListPage
from runglass.sse import frame, position_frame
from runglass.store.list_records import ChangedRun, RunListing

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
    """The run's `flowRun`, or the fields of its row where it is broken: it must not hide the other runs."""
    try:
        _any_json.decode(run.summary)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("the summary of run %s cannot be read: %s", run.id, error)  # noqa: TRY400
        row = {"id": run.id, "flowId": run.flow_id, "status": run.status, "triggerType": run.trigger_type}
        return msgspec.json.encode(row)
    return run.summary


def _frame(changed: ChangedRun) -> bytes:
    if changed.listing is None:
        return frame(changed.number, "gone", msgspec.json.encode({"id": changed.run_id}))
    return frame(changed.number, "run", listed(changed.listing))


_any_json = msgspec.json.Decoder(msgspec.Raw)
