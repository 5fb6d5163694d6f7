"""The diff of two runs, made of their aligned attempts and the rows of those that differ. No I/O."""

from collections.abc import Sequence
from typing import Literal

from runglass.diff.attempt_diff import row_with
from runglass.diff.divergence import divergence_of
from runglass.diff.run_diff import Divergence, RowDiff, RunDiff
from runglass.diff.trace_diff import AttemptPair
from runglass.log.trace import RunSummary

MOST_ROWS = 10_000
"""Attempts that a diff lists."""


def compose(
    a: RunSummary,
    b: RunSummary,
    pairs: Sequence[AttemptPair],
    rows: Sequence[RowDiff | None],
    *,
    with_same: bool,
    is_whole: bool,
) -> RunDiff:
    """The diff. `rows` are those of the first pairs that differ, None where they do not after all.

    `is_whole` says that all attempts of both runs are in `pairs`; `with_same` lists those that are the same,
    too, as far as there is room.
    """
    listed: list[RowDiff] = []
    different = same = 0
    is_cut = not is_whole
    room = MOST_ROWS - sum(row is not None for row in rows) if with_same else 0
    following = iter(rows)
    for pair in pairs:
        row = None
        if pair.differs:
            try:
                row = next(following)
            except StopIteration:
                different, is_cut = different + 1, True
                continue
        if row is not None:
            different += 1
            is_cut = is_cut or any(change.cut for change in row.changes)
            listed.append(row)
            continue
        same += 1
        if room > 0:
            listed.append(row_with(pair, []))
            room -= 1
    is_cut = is_cut or (with_same and len(listed) < different + same)
    first = next((row for row in rows if row is not None), None)
    divergence = None if first is None else divergence_of(first)
    if first is None and a.status != b.status:
        ends = f"the first run is {a.status} and the second is {b.status}"
        divergence = Divergence(sentence=f"no attempt differs, but {ends}")
    flows: Literal["same", "drafts", "versions", "different"] = "same"
    if a.flow_id != b.flow_id:
        flows = "different"
    elif a.version != b.version:
        flows = "versions"
    elif not a.version and a.id != b.id:
        flows = "drafts"
    return RunDiff(
        a=a,
        b=b,
        same=divergence is None and not is_cut,
        flows=flows,
        first_divergence=divergence,
        rows=listed,
        different_rows=different,
        same_rows=same,
        size_only_rows=sum(pair.is_size_only for pair in pairs),
        cut=is_cut,
    )
