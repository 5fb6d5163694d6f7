"""Sends runs that have ended on as spans of OpenTelemetry, to whoever takes them at `otlp_endpoint`.

There is no queue of what waits: each project has a cursor in the store, which says up to which change of its
runs all is sent, and moves once the receiver has taken it. So nothing is lost and nothing overflows, however
long the receiver is away. What was on its way when the process died is sent again, with the same ids.
"""

import gzip
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, NamedTuple

from runglass import __version__
from runglass.client.core.connection import ServerConnection
from runglass.client.core.requests import RequestSpec
from runglass.client.core.responses import ConnectionLost, Outcome, backoff_s
from runglass.client.transport.on_asyncio import AsyncTransport
from runglass.errors import RunPurged, RunUnreadable, StoreError
from runglass.limits.offload import offload
from runglass.limits.pace import current_project
from runglass.log.measurements import measured
from runglass.log.trace import TERMINAL, RunSummary
from runglass.run_files.otlp import OtlpRequests, refused_spans
from runglass.runtime.runtime import Runtime
from runglass.server.services.outlines import Outlines
from runglass.server.services.run_export import tree_parts
from runglass.store.records import RECORDED, Project, SpanCursor
from runglass.support.clock import Clock
from runglass.support.logs import FailureLog
from runglass.wire.query import RunQuery

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
"""So often it is looked whether a run has ended."""
CLAIM_S = 30.0
"""So long other servers on the store leave it to this one, from each time that it says so."""
PAGE_RUNS = 100
BATCH_BYTES = 1 << 20
"""About how much goes into one request, before it is compressed."""
ANSWER_S = 30.0
"""How long the receiver may take to answer."""
LONGEST_WAIT_S, LONGEST_ASKED_S = 60.0, 3600.0
"""So long it waits at most by itself, and where the receiver asks it to."""
FAULTS = 3
"""So often the receiver may answer 500, after which other projects go first: what it got may be the cause."""
REFUSED = frozenset({400, 413, 422})
"""Statuses that find fault with what is sent, and would do so again. With any other it is sent again."""
LATER = frozenset({401, 403, 404, 429, 502, 503, 504})
"""Statuses that say nothing of what is sent: nobody may send, or not now."""
FAULT_S, LATER_S = 900.0, 86_400.0
"""So long a run is sent again that gets another answer, or one of `LATER`; then the next one has its turn.
While nobody answers nothing is given up."""


class _Part(NamedTuple):
    """Spans of one run, as a request by itself."""

    run_id: str
    data: bytes
    spans: int


class _Postponed(Exception):
    """What is sent has to wait until other projects have had their turn."""


class _Outdated(Exception):
    """What is being sent is not to be sent any more, or not by this process: look again."""


class _Receiver(ServerConnection, frozen=True, kw_only=True):
    """Who takes spans, and the headers that it asks for."""

    own: dict[str, str]

    def headers(self) -> dict[str, str]:
        return {
            "User-Agent": f"runglass/{__version__}",
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
            **self.own,
        }


class SpanExporter:
    """Of one server: sends what has ended, a page of each project in turn. `url` takes the spans."""

    def __init__(self, runtime: Runtime, url: str, *, headers: dict[str, str], clock: Clock) -> None:
        self._runtime = runtime
        self._store = runtime.store
        self._clock = clock
        # Held by nobody: each is needed once, and readers hold those that they ask for.
        self._outlines = Outlines(runtime, limit_bytes=0)
        self._receiver = _Receiver(base_url=url, api_key="", timeout_s=ANSWER_S, max_retries=0, own=headers)
        self._failures = FailureLog(log, f"sending runs on to {url} failed")
        self._is_refused = False
        self._failing: dict[str, tuple[float, float]] = {}
        """By the first run of what is sent again, how long that is done in all, and since when."""
        self._unsent_id: str | None = None
        self._claimed_s = self._rested_s = clock.monotonic_s()

    async def run_forever(self) -> None:
        """Sends what has ended until it is cancelled. A store or a receiver that fails is tried again."""
        transport = AsyncTransport(self._receiver)
        try:
            while True:
                self._rested_s, has_more = self._clock.monotonic_s(), False
                try:
                    if await self._store.claim_maintenance("spans", for_s=CLAIM_S):
                        self._claimed_s = self._clock.monotonic_s()
                        for cursor in await self._store.span_cursors():
                            with suppress(_Postponed):
                                has_more |= await self._send_page(transport, cursor)
                except StoreError as error:
                    self._failures.failed(error)
                except _Outdated as reason:
                    log.info("what was being sent on as spans is looked up again: %s", reason)
                await (self._rest() if has_more else self._clock.sleep(INTERVAL_S))
        finally:
            await transport.aclose()

    async def _send_page(self, transport: AsyncTransport, cursor: SpanCursor) -> bool:
        """Sends some runs of a project. Whether there may be more. Raises StoreError, _Outdated."""
        current_project.set(cursor.project_id)
        if (project := await self._store.project(cursor.project_id)) is None:
            return False
        changed = await self._store.changed_runs(
            cursor.project_id, RunQuery(), after=cursor.change_no, limit=PAGE_RUNS
        )
        batch: list[_Part] = []
        runs, through = 0, cursor.change_no
        for change in changed:
            listing = change.listing
            # One that goes on has another change ahead, and comes again.
            if listing and listing.status in TERMINAL and listing.trigger_type not in RECORDED:
                async for part in self._parts(change.run_id, project):
                    if batch and sum(len(each.data) for each in batch) + len(part.data) > BATCH_BYTES:
                        await self._deliver(transport, batch)
                        cursor = await self._moved(cursor, through, runs)
                        batch, runs = [], 0
                    batch.append(part)
                runs += 1
            through = change.number
        if len(changed) < PAGE_RUNS:
            # The changes behind these are of runs that were deleted.
            through = max(through, cursor.last)
        if batch:
            await self._deliver(transport, batch)
        await self._moved(cursor, through, runs)
        return len(changed) == PAGE_RUNS

    async def _moved(self, cursor: SpanCursor, through: int, runs: int) -> SpanCursor:
        """The cursor behind runs that are sent. Raises _Outdated where another process has moved it."""
        if through == cursor.change_no:
            return cursor
        if not await self._store.move_span_cursor(cursor, through):
            raise _Outdated("the store has another cursor by now")
        measured.sent_runs += runs
        return cursor._replace(change_no=through)

    async def _parts(self, run_id: str, project: Project) -> AsyncGenerator[_Part, None]:
        """The spans of a run, some at a time; none where it is not there any more."""
        if (run := await self._store.run(run_id)) is None:
            return
        writers: list[OtlpRequests] = []

        def writer_of(summary: RunSummary) -> OtlpRequests:
            name = f"{project.org}/{project.name}"
            writers.append(OtlpRequests(summary, version=__version__, resource=[("runglass.project", name)]))
            return writers[0]

        written = 0
        try:
            async for data in tree_parts(self._store, self._outlines, run, writer_of):
                if data:
                    yield _Part(run.id, data, writers[0].spans - written)
                    written = writers[0].spans
        except RunPurged:
            # Whoever purged it has counted it.
            log.debug("run %r was deleted while it was sent on", run_id)
        except RunUnreadable as error:
            log.warning("it is not sent on as spans: %s", error)

    async def _deliver(self, transport: AsyncTransport, batch: list[_Part]) -> None:
        """Returns once the receiver has taken the spans, or has said for long enough that it does not.

        Raises _Outdated, _Postponed.
        """
        data = b"".join(part.data for part in batch)
        body = await offload(partial(gzip.compress, data, 1), size_bytes=len(data))
        request = RequestSpec[None](method="POST", path="", answer=type(None), body=body)
        spans, first_id, failures = sum(part.spans for part in batch), batch[0].run_id, 0
        await self._rest()
        while True:
            await self._keep_claim()
            outcome = await transport.outcome(request, timeout=ANSWER_S)
            self._rested_s = now_s = self._clock.monotonic_s()
            status = 0 if isinstance(outcome, ConnectionLost) else outcome.status
            known = self._failing.pop(first_id, None)
            if not isinstance(outcome, ConnectionLost) and 200 <= outcome.status < 300:
                self._failures.worked()
                return self._note_answer(spans, bytes(outcome.body))
            patience_s = LATER_S if status in LATER else FAULT_S if status else inf
            since_s = known[1] if known is not None and known[0] == patience_s else now_s
            if status in REFUSED or now_s - since_s >= patience_s:
                if len(batch) == 1:
                    return self._note_unsent(batch[0], _reason(outcome))
                # One of them may be the cause: the others are not to be lost with it.
                self._failing[first_id] = patience_s, since_s
                for part in batch:
                    await self._deliver(transport, [part])
                return None
            self._failing[first_id] = patience_s, since_s
            failures += 1
            measured.failed_sends += 1
            self._failures.failed(_reason(outcome))
            await self._wait(outcome, failures)
            if status == 500 and failures >= FAULTS:
                raise _Postponed
            for run_id in {part.run_id for part in batch}:
                if await self._store.run(run_id) is None:
                    raise _Outdated(f"run {run_id!r} was deleted")

    async def _rest(self) -> None:
        """Rests as long as it has worked: others have half of the time at least."""
        await self._clock.sleep(self._clock.monotonic_s() - self._rested_s)
        self._rested_s = self._clock.monotonic_s()

    async def _wait(self, outcome: Outcome, failures: int) -> None:
        """Waits as long as the receiver asks for, or longer each time. Raises _Outdated, StoreError."""
        left_s = backoff_s(failures, first_s=INTERVAL_S, most_s=LONGEST_WAIT_S)
        if not isinstance(outcome, ConnectionLost):
            left_s = max(left_s, min(outcome.retry_after_s or 0.0, LONGEST_ASKED_S))
        while left_s > 0:
            piece_s = min(left_s, CLAIM_S / 3)
            await self._clock.sleep(piece_s)
            left_s -= piece_s
            await self._keep_claim()

    async def _keep_claim(self) -> None:
        """Says that this process goes on. Raises _Outdated where another one has begun."""
        now_s = self._clock.monotonic_s()
        if now_s - self._claimed_s >= CLAIM_S / 3:
            if not await self._store.claim_maintenance("spans", for_s=CLAIM_S):
                raise _Outdated("another server sends now")
            self._claimed_s = now_s

    def _note_answer(self, spans: int, body: bytes) -> None:
        try:
            refused, reason = refused_spans(body)
        except ValueError:
            # It says that all is well, in whatever it says.
            refused, reason = 0, ""
        refused = min(max(refused, 0), spans)
        if refused and not self._is_refused:
            reason = reason or "no reason given"
            log.warning("%s refuses spans, which are not sent again: %s", self._receiver.base_url, reason)
        self._is_refused = refused > 0
        measured.sent_spans["refused"] += refused
        measured.sent_spans["accepted"] += spans - refused

    def _note_unsent(self, part: _Part, reason: str) -> None:
        self._failures.worked()
        measured.sent_spans["refused"] += part.spans
        if part.run_id != self._unsent_id:
            self._unsent_id = part.run_id
            measured.refused_runs += 1
            log.warning("run %s is not sent to %s: %s", part.run_id, self._receiver.base_url, reason)


def _reason(outcome: Any) -> str:
    if isinstance(outcome, ConnectionLost):
        return outcome.reason
    return f"it answered with status {outcome.status}: {outcome.excerpt!r}"
