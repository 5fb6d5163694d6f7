"""The diff of two stored runs, or of two attempts of a step, with bounds on what is read, held and told.

All attempts are read in pages, of which hashes of the content stay in memory; content is read again where it
differs. Nothing large is computed on the event loop, and nothing in large pieces.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from runglass.diff.alignment import (
    FlowOrder,
    StepLocation,
    align,
    align_spans,
    step_locations,
    without_unread,
)
from runglass.diff.attempt_diff import MOST_ROWS, DiffAllowance, changes_between, compose, row_of
from runglass.diff.digest import AttemptDigest, AttemptPair, StoredAttempt, read_attempt, read_digest
from runglass.diff.run_diff import AttemptsDiff, AttemptsSide, RowDiff, RunDiff
from runglass.flows.flow import Flow
from runglass.limits.offload import offload, offload_in_turn, yield_to_others
from runglass.limits.pace import paced_read
from runglass.outlines.builder import AttemptRow
from runglass.server.http.response_stream import PART_BYTES
from runglass.server.services.outlines import flow_nodes
from runglass.server.services.run_content import INLINE_BYTES, read_flow
from runglass.server.services.step_attempts import attempt_pages
from runglass.store.base import Store, decoding, summary_of
from runglass.store.records import AttemptKey, RunRecord
from runglass.store.run_logs import RunLog

MOST_READ_BYTES = 256_000_000
"""Stored bytes of each run that are read at first."""
MOST_VISITS = 3_000_000
"""Values of content that are looked at in all, about a second of the processor."""
MOST_TOLD_BYTES = 4_000_000
"""Bytes of differences of content that are told in all."""
PAIRS_AT_ONCE = 32
"""Attempts of each run whose content is read again in one go."""
PIECE_BYTES = 64 * 1024
"""About how much content is compared in one piece of work; a pair of attempts is never split."""


class _Read(NamedTuple):
    """What was read of a run; it has more attempts where `is_whole` is false."""

    digests: list[AttemptDigest]
    is_whole: bool

    @property
    def is_recorded(self) -> bool:
        return all(digest.span is not None for digest in self.digests)


async def diff_runs(
    store: Store, a: RunRecord, b: RunRecord, *, with_same: bool, most_attempts: int = 100_000
) -> RunDiff:
    """What differs between the runs; `with_same` lists the attempts that do not differ, too.

    Up to `most_attempts` of each are compared, of some 500 bytes of memory. Raises StoreError, RunUnreadable.
    """
    read_a, read_b = await _read(store, a, most_attempts), await _read(store, b, most_attempts)
    # The older run stands first whichever is `a`, so that the order is the same both ways.
    older_first = sorted([(a, read_a), (b, read_b)], key=lambda each: each[0].id)
    if all(read.is_recorded for _, read in older_first):
        aligned = partial(_span_pairs, read_a.digests, read_b.digests, is_a_first=older_first[0][0] is a)
    else:
        flows = [await read_flow(store, run, _locations) or [] for run, _ in older_first]
        order = FlowOrder(*flows, *(_started(read) for _, read in older_first))
        aligned = partial(align, read_a.digests, read_b.digests, order=order)
    pairs = await offload_in_turn(
        lambda: without_unread(aligned(), a_is_whole=read_a.is_whole, b_is_whole=read_b.is_whole)
    )
    differing = await offload_in_turn(lambda: [pair for pair in pairs if pair.differs])
    rows = await _rows(store, a, b, differing[:MOST_ROWS])
    return await offload_in_turn(
        partial(
            compose,
            summary_of(a),
            summary_of(b),
            pairs,
            rows,
            with_same=with_same,
            is_whole=read_a.is_whole and read_b.is_whole,
        )
    )


def _span_pairs(a: list[AttemptDigest], b: list[AttemptDigest], *, is_a_first: bool) -> list[AttemptPair]:
    return align_spans(a, b) if is_a_first else [AttemptPair(*pair[::-1]) for pair in align_spans(b, a)]


async def diff_attempts(store: RunLog, run: RunRecord, a: AttemptKey, b: AttemptKey) -> AttemptsDiff:
    """In what attempt `b` differs from attempt `a`. Raises StoreError, RunUnreadable."""
    data = await _data(store, run, [a, b])
    return await offload_in_turn(partial(_diff, run, [a.position, b.position], data))


def _started(read: _Read) -> list[StepLocation]:
    """The steps in order of first start, for those that the flow does not have any more."""
    return [StepLocation(step_id) for step_id in dict.fromkeys(each.step_id for each in read.digests)]


def _locations(flow: Flow) -> list[StepLocation]:
    return step_locations(flow_nodes(flow))


async def _read(store: RunLog, run: RunRecord, most: int) -> _Read:
    """All attempts of the run, up to the limits. Of a run that goes on, later pages are of a later moment."""
    digests: list[AttemptDigest] = []
    texts: dict[str, str] = {}
    size, after = 0, (0, 0)
    while True:
        read = partial(store.attempt_page, run.no, after=after, limit_bytes=PART_BYTES)
        _, page = await paced_read(run.project_id, read, size_bytes=run.log_bytes)
        if not page:
            return _Read(digests, is_whole=True)
        fitting = page[: most - len(digests)]
        page_bytes = sum(len(row[-1]) for row in page)
        work = partial(_digests, run, fitting, texts)
        digests += await offload(work, size_bytes=page_bytes, quick_bytes=INLINE_BYTES)
        size += page_bytes
        if len(fitting) < len(page) or size > MOST_READ_BYTES:
            return _Read(digests, is_whole=False)
        after = (page[-1][0], page[-1][3])


def _digests(run: RunRecord, page: Sequence[AttemptRow], texts: dict[str, str]) -> list[AttemptDigest]:
    with decoding(run.id):
        return [read_digest(row[0], row[-1], texts) for row in page]


async def _rows(
    store: RunLog, a: RunRecord, b: RunRecord, pairs: Sequence[AttemptPair]
) -> list[RowDiff | None]:
    """The rows of pairs that differ, None for those that do not after all."""
    allowance = DiffAllowance(visits=MOST_VISITS, told_bytes=MOST_TOLD_BYTES)
    rows: list[RowDiff | None] = []
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        batch = pairs[start : start + PAIRS_AT_ONCE]
        read = [] if allowance.is_spent else [pair for pair in batch if pair.content_differs]
        stored_a = await _data(store, a, (pair.a for pair in read if pair.a is not None))
        stored_b = await _data(store, b, (pair.b for pair in read if pair.b is not None))
        stored = zip(stored_a, stored_b, strict=True)
        works = [(pair, next(stored, None) if pair.content_differs else None) for pair in batch]
        for piece in _pieces(works):
            rows += await offload_in_turn(partial(_rows_of, a, b, piece, allowance))
    return rows


_Work = tuple[AttemptPair, tuple[bytes, bytes] | None]
"""A pair, with the StepTraces of its attempts as JSON where their content differs."""


async def _data(store: RunLog, run: RunRecord, attempts: Iterable[AttemptDigest | AttemptKey]) -> list[bytes]:
    keys = [AttemptKey(each.position, "", each.attempt) for each in attempts]
    return [data async for page in attempt_pages(store, run, keys) for data in page]


def _pieces(works: Sequence[_Work]) -> Iterator[list[_Work]]:
    piece: list[_Work] = []
    size = 0
    for work in works:
        piece.append(work)
        size += sum(map(len, work[1] or ()))
        if size > PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _rows_of(
    a: RunRecord, b: RunRecord, works: Sequence[_Work], allowance: DiffAllowance
) -> list[RowDiff | None]:
    rows = []
    for pair, stored in works:
        content = None if stored is None else (_content(a, stored[0]), _content(b, stored[1]))
        rows.append(row_of(pair, content, allowance=allowance))
        yield_to_others()
    return rows


def _content(run: RunRecord, data: bytes) -> StoredAttempt:
    with decoding(run.id):
        return read_attempt(data)


def _diff(run: RunRecord, positions: Sequence[int], data: Sequence[bytes]) -> AttemptsDiff:
    with decoding(run.id):
        a, b = (read_digest(*each, {}) for each in zip(positions, data, strict=True))
        of_a, of_b = data
        content = (read_attempt(of_a), read_attempt(of_b)) if AttemptPair(a, b).content_differs else None
    allowance = DiffAllowance(visits=MOST_VISITS, told_bytes=MOST_TOLD_BYTES)
    changes = changes_between(a, b, content, allowance=allowance)
    return AttemptsDiff(
        step_id=a.step_id,
        a=_side(a),
        b=_side(b),
        same=all(change.field == "durationMs" for change in changes),
        changes=changes,
    )


def _side(attempt: AttemptDigest) -> AttemptsSide:
    return AttemptsSide(loop_path=attempt.loop_path, attempt=attempt.attempt, status=attempt.status)
