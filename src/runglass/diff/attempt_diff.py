"""In what two attempts of the same address differ, field by field, and the diff of two runs that follows.

Work and answer have a bound. Content is decoded here, one pair of snapshots at a time. No I/O.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import msgspec

from runglass.diff.digest import (
    NOT_KEPT,
    AttemptDigest,
    AttemptPair,
    StoredAttempt,
    calls_differ,
    differ_if_known,
    requests_json,
    responses_json,
)
from runglass.diff.json_diff import compare, excerpts
from runglass.diff.run_diff import (
    DiffField,
    Divergence,
    FieldChange,
    RowDiff,
    RunDiff,
    ValueChange,
    divergence_of,
)
from runglass.flows.diagnostics import path_text
from runglass.log.trace import RunSummary
from runglass.support.json_weight import weighs_more

MOST_VISITS = 100_000
"""Values of two snapshots that are looked at."""
MOST_PATHS = 100
"""Differences of two snapshots that are listed."""
MOST_WEIGHT = 500_000
"""A snapshot that takes as long to be decoded as more small values is not compared."""
BYTES_PER_VISIT = 32
"""So many bytes of JSON are decoded in the time in which a value is visited."""


@dataclass(kw_only=True)
class DiffAllowance:
    """How much content of one diff may still be compared, in visits of values, and listed, in bytes."""

    visits: int
    told_bytes: int

    @property
    def is_spent(self) -> bool:
        """Whether no more content is compared."""
        return self.visits <= 0 or self.told_bytes <= 0


ContentPair = tuple[StoredAttempt, StoredAttempt]
"""The attempts of a pair with their content."""


def row_of(pair: AttemptPair, content: ContentPair | None, *, allowance: DiffAllowance) -> RowDiff | None:
    """In what the attempts of the pair differ; None where it turns out that they do not.

    `content` is needed where it differs; where it is None all the same, the row says that it was not
    compared.
    """
    a, b = pair
    if a is None or b is None:
        # What is known of an attempt that one of the runs does not have.
        return row_with(
            pair,
            _known(
                _scalar("modelUsed", a and a.model_used, b and b.model_used),
                _scalar("status", a and a.status, b and b.status),
                _scalar("tokens", a and a.tokens, b and b.tokens),
                _scalar("costUsd", a and a.cost_usd, b and b.cost_usd),
                _scalar("durationMs", a and a.duration_ms, b and b.duration_ms),
            ),
        )
    changes = changes_between(a, b, content, allowance=allowance)
    return row_with(pair, changes) if any(change.field != "durationMs" for change in changes) else None


def changes_between(
    a: AttemptDigest, b: AttemptDigest, content: ContentPair | None, *, allowance: DiffAllowance
) -> list[FieldChange]:
    """In what two attempts differ, in the order of `DiffField`; `content` as in `row_of`."""
    kept = all(each is not None and each.content is not None for each in (a.requests, b.requests))
    content_change = partial(_content, content, allowance)
    return _known(
        (differ_if_known(a.input, b.input) and content_change("input", lambda of: bytes(of.input_context)))
        or _size("inputSizeBytes", a.input_size_bytes, b.input_size_bytes),
        _scalar("modelUsed", a.model_used, b.model_used),
        content_change("modelRequests", lambda of: requests_json(of.model_calls, with_content=kept))
        if calls_differ(a.requests, b.requests)
        else None,
        _scalar("status", a.status, b.status),
        # An attempt without an error differs in each field that the error of the other has.
        None if a.error == b.error else content_change("error", lambda of: bytes(of.error_context)),
        (
            differ_if_known(a.output, b.output)
            and content_change("output", lambda of: bytes(of.output_context))
        )
        or _size("outputSizeBytes", a.output_size_bytes, b.output_size_bytes),
        content_change("modelResponses", lambda of: responses_json(of.model_calls, with_content=kept))
        if calls_differ(a.responses, b.responses)
        else None,
        _scalar("finishReason", a.finish_reason, b.finish_reason),
        _scalar("tokens", a.tokens, b.tokens),
        _scalar("costUsd", a.cost_usd, b.cost_usd),
        _scalar("durationMs", a.duration_ms, b.duration_ms),
    )


def row_with(pair: AttemptPair, changes: list[FieldChange]) -> RowDiff:
    """The row of a pair; without changes that of one that does not differ."""
    one, b = pair.one, pair.b
    is_renamed = b is not None and (b.step_id, b.loop_path) != (one.step_id, one.loop_path)
    return RowDiff(
        step_id=one.step_id,
        loop_path=one.loop_path,
        step_id_b=b.step_id if b is not None and is_renamed else None,
        loop_path_b=b.loop_path if b is not None and is_renamed else None,
        attempt=one.attempt,
        in_a=pair.a is not None,
        in_b=pair.b is not None,
        changes=changes,
    )


def _known(*changes: FieldChange | None) -> list[FieldChange]:
    return [change for change in changes if change is not None]


def _scalar(field: DiffField, a: Any, b: Any) -> FieldChange | None:
    if a == b:
        return None
    # Plain JSON, as clients read it.
    return FieldChange(field=field, a=msgspec.to_builtins(a), b=msgspec.to_builtins(b))


def _size(field: DiffField, a: int | None, b: int | None) -> FieldChange | None:
    return FieldChange(field=field, a=a, b=b) if differ_if_known(a, b) else None


def _content(
    content: ContentPair | None,
    allowance: DiffAllowance,
    field: DiffField,
    snapshot_of: Callable[[StoredAttempt], bytes],
) -> FieldChange | None:
    if content is None or allowance.is_spent:
        return FieldChange(field=field, cut=True)
    a, b = (b"{}" if each in NOT_KEPT else each for each in map(snapshot_of, content))
    allowance.visits -= (len(a) + len(b)) // BYTES_PER_VISIT
    if weighs_more(a, MOST_WEIGHT) or weighs_more(b, MOST_WEIGHT):
        return FieldChange(field=field, cut=True)
    try:
        value_a, value_b = msgspec.json.decode(a), msgspec.json.decode(b)
    except (msgspec.DecodeError, RecursionError):
        # It is nested more deeply, or has a greater number, than can be read.
        return FieldChange(field=field, cut=True)
    diff = compare(
        value_a,
        value_b,
        most_visits=min(MOST_VISITS, max(0, allowance.visits)),
        most_changes=MOST_PATHS,
    )
    allowance.visits -= diff.visits
    paths: list[ValueChange] = []
    for change in diff.changes:
        if allowance.told_bytes <= 0:
            return FieldChange(field=field, paths=paths, cut=True)
        told_a, told_b, cut = excerpts(change.a, change.b)
        paths.append(ValueChange(path=path_text(change.parts), kind=change.kind, a=told_a, b=told_b, cut=cut))
        allowance.told_bytes -= len(msgspec.json.encode(paths[-1]))
    return FieldChange(field=field, paths=paths, cut=diff.cut) if paths or diff.cut else None


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
    elif not a.version and a.id != b.id and a.recording is None:
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
