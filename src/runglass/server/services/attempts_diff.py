"""The diff of two stored attempts of one step, with the bounds that the diff of two runs has for each pair.

Both are held in memory as they are stored; content is decoded only where it differs, and off the event loop.
"""

from collections.abc import Sequence
from functools import partial

from runglass.diff.attempt_diff import ContentPair, DiffAllowance, changes_between
from runglass.diff.run_diff import AttemptsDiff, AttemptsSide
from runglass.diff.trace_diff import AttemptDigest, AttemptPair, read_content, read_digest
from runglass.engine.scheduling.offloading import offload_in_turn
from runglass.engine.scheduling.pacing import paced_read
from runglass.server.http.json_streaming import PART_BYTES
from runglass.server.services.run_diff import MOST_TOLD_BYTES, MOST_VISITS
from runglass.store.base import Store, decoding
from runglass.store.records import AttemptKey, RunRecord


async def diff_attempts(store: Store, run: RunRecord, a: AttemptKey, b: AttemptKey) -> AttemptsDiff:
    """In what attempt `b` differs from attempt `a`. Raises StoreError, RunUnreadable."""
    data: list[bytes] = []
    while len(data) < 2:
        read = partial(store.attempt_data, run.no, [a, b][len(data) :], limit_bytes=PART_BYTES)
        data += await paced_read(run.project_id, read, size_bytes=run.log_bytes)
    return await offload_in_turn(partial(_diff, run, [a.position, b.position], data))


def _diff(run: RunRecord, positions: Sequence[int], data: Sequence[bytes]) -> AttemptsDiff:
    with decoding(run.id):
        a, b = (read_digest(*each, {}) for each in zip(positions, data, strict=True))
        content = ContentPair(*map(read_content, data)) if AttemptPair(a, b).content_differs else None
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
    return AttemptsSide(loop_path=attempt.loop_path or None, attempt=attempt.attempt, status=attempt.status)
