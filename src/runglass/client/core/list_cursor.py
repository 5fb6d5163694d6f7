"""The cursor of the live list of runs: which changes it has had, across any number of connections.

No I/O, as with every cursor.
"""

import uuid
from collections.abc import Iterator, Sequence
from types import NoneType

import msgspec

from runglass.client.core import requests
from runglass.client.core.requests import RequestSpec, Time, is_count
from runglass.client.core.stream_cursor import ResumingCursor
from runglass.errors import APIConnectionError
from runglass.log.trace import TERMINAL, RunStatus, RunSummary
from runglass.wire.run_api import RunChange
from runglass.wire.sse import Frame


def live_runs(
    *,
    flow_id: str | uuid.UUID | None,
    status: RunStatus | None,
    query: str | None,
    flow: str | None,
    since: Time | None,
    until: Time | None,
    after: int | None,
) -> RequestSpec[None]:
    """The live list of runs; `after` is only checked here. Raises ValueError for invalid arguments."""
    if after is not None and not is_count(after, 0):
        raise ValueError(f"after must be the number of a change or a page's last_change, not {after!r:.100}")
    page = requests.runs(
        flow_id=flow_id, status=status, query=query, flow=flow, since=since, until=until, limit=1, cursor=None
    )
    asked = tuple(pair for pair in page.query if pair[0] != "limit")
    return RequestSpec(method="GET", path="/flow-runs/stream", answer=NoneType, query=asked)


class _Gone(msgspec.Struct):
    id: str


class ListCursor(ResumingCursor[RunChange]):
    """Follows the runs of a query, which never ends by itself.

    `after` is the number of a change, behind which it begins; None for now. A run that does not meet the
    query is told only to a reader who may list it: from this stream, or from the page before `after`.
    """

    about = "live list"
    begins_at = -1

    def __init__(self, request: RequestSpec[None], *, after: int | None, first_attempts: int) -> None:
        super().__init__(request.path, query=request.query, first_attempts=first_attempts)
        self.last = self.begins_at if after is None else after
        self._has_page = after is not None
        self._listed: set[str] = set()

    def feed(self, chunk: bytes) -> Iterator[RunChange]:
        """The changes that end in these bytes. Raises APIConnectionError for bytes that cannot be read."""
        yield from super().feed(chunk)
        # A block without data says where the stream is, though there is nothing to tell.
        position = self._decoder.last_event_id
        if position.isdecimal():
            self.last = max(self.last, int(position))

    def _news(self, frames: Sequence[Frame]) -> Iterator[RunChange]:
        for frame in frames:
            if frame.event not in ("run", "gone"):
                continue
            change = self._change(frame)
            if change.number > self.last:
                self.last = change.number
                self._brought_news = True
                self._failures = 0
                if change.run is None and not self._has_page and change.run_id not in self._listed:
                    continue
                # Only a run that has not ended can leave the list again, so the set stays small.
                if change.run is None or change.run.status in TERMINAL:
                    self._listed.discard(change.run_id)
                else:
                    self._listed.add(change.run_id)
                yield change

    def _change(self, frame: Frame) -> RunChange:
        try:
            number = int(frame.id)
            if frame.event == "gone":
                return RunChange(number=number, run_id=msgspec.json.decode(frame.data, type=_Gone).id)
            run = msgspec.json.decode(frame.data, type=RunSummary)
        except (ValueError, msgspec.DecodeError) as error:
            raise APIConnectionError(
                f"{self}: change {frame.id or '(without id)'} is not readable ({error}): {frame.data[:100]!r}"
            ) from error
        return RunChange(number=number, run_id=run.id, run=run)
