"""What differs between two runs, as the server tells it and a caller reads it, and the same in words.

Plain values shared by client, server and terminal; `attempt_diff.py` makes them. No I/O.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from runglass.diff.json_diff import ChangeKind, brief, brief_pair
from runglass.log.trace import RunSummary, written

DiffField = Literal[
    "input",
    "inputSizeBytes",
    "modelUsed",
    "modelRequests",
    "status",
    "error",
    "output",
    "outputSizeBytes",
    "modelResponses",
    "finishReason",
    "tokens",
    "costUsd",
    "durationMs",
]
"""What of an attempt is compared, causes first; `durationMs` alone makes no attempt differ.

`modelRequests` is a list of what models were asked, `modelResponses` one of what they answered.
"""

CONTENT_FIELDS: frozenset[DiffField] = frozenset(
    ("input", "modelRequests", "error", "output", "modelResponses")
)
"""The fields whose values are compared place by place."""


class ValueChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A place in a field of content where two runs differ, such as `items[2].text`.

    `a` is what the first run has there, None where it was `added`; `b` what the second has, None where it was
    `removed`. With `cut` one of them is an excerpt, or a text that says how large it is.
    """

    path: str
    kind: ChangeKind
    a: Any = None
    b: Any = None
    cut: bool = False


class FieldChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A field in which an attempt differs: `a` is that of the first run, `b` that of the second.

    One of the `CONTENT_FIELDS` has `paths` instead. With `cut` there may be more of them: it was too
    large to be compared to the end.
    """

    field: DiffField
    a: Any = None
    b: Any = None
    paths: list[ValueChange] = []
    cut: bool = False


class RowDiff(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An attempt of a step, named by its address, in the first run, in the second or in both.

    `changes` are empty for one that is the same in both. Of recorded runs the second may call it by another
    `step_id_b` and `loop_path_b`.
    """

    step_id: str
    loop_path: tuple[int, ...] | None = None
    step_id_b: str | None = None
    loop_path_b: tuple[int, ...] | None = None
    attempt: int = written(1)
    in_a: bool = written(True)
    in_b: bool = written(True)
    changes: list[FieldChange]


class Divergence(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The first difference in the order of the flow, in a sentence for people.

    It names no step where every attempt is the same and the runs have ended differently.
    """

    sentence: str
    step_id: str | None = None
    loop_path: tuple[int, ...] | None = None
    attempt: int | None = None


class RunDiff(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What differs between the runs `a` and `b`, attempt by attempt.

    `same` says that all was compared, and nothing differs. `flows` says whether both are runs of the `same`
    version of a flow, of its draft (`drafts`), which may have changed between them, of `versions` of one
    flow, or of `different` flows. `rows` are the attempts that differ, in the order of the flow;
    `different_rows` counts them, `same_rows` the others.
    `size_only_rows` counts those in both runs of which input or output was not kept in one of them: there the
    size alone was compared, where it is known. With `cut` not all was compared or listed.
    """

    a: RunSummary
    b: RunSummary
    same: bool
    flows: Literal["same", "drafts", "versions", "different"]
    first_divergence: Divergence | None = None
    rows: list[RowDiff]
    different_rows: int = written(0)
    same_rows: int = written(0)
    size_only_rows: int = written(0)
    cut: bool = written(False)


class AttemptsSide(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One of two attempts of a step that are compared."""

    loop_path: tuple[int, ...] | None = None
    attempt: int = written(1)
    status: str


class AttemptsDiff(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """In what the attempt `b` of a step differs from the attempt `a` of the same run and step.

    `same` says that they differ in nothing but, it may be, in how long they took.
    """

    step_id: str
    a: AttemptsSide
    b: AttemptsSide
    same: bool
    changes: list[FieldChange]


_WORDS = {
    "inputSizeBytes": "size of the input",
    "outputSizeBytes": "size of the output",
    "modelUsed": "model",
    "modelRequests": "model request",
    "modelResponses": "model response",
    "finishReason": "finish reason",
    "costUsd": "cost",
    "durationMs": "duration",
}
_WHOLE = "the whole value"
REASON_CHARS = 200
"""As much is said of why an attempt failed."""


def divergence_of(row: RowDiff) -> Divergence:
    """The first difference of two runs; `row` is the first that differs."""
    return Divergence(
        sentence=f"{address_text(row.step_id, row.loop_path, row.attempt)}: {row_text(row)}",
        step_id=row.step_id,
        loop_path=row.loop_path,
        attempt=row.attempt,
    )


def address_text(step_id: str, loop_path: Sequence[int] | None, attempt: int) -> str:
    """An attempt as people name it: `words`, `words[3]`, `cell[0,2] attempt 2`."""
    iteration = f"[{','.join(map(str, loop_path))}]" if loop_path else ""
    return f"{step_id}{iteration}" + (f" attempt {attempt}" if attempt > 1 else "")


def row_text(row: RowDiff) -> str:
    """The first change of an attempt that differs, and that of its status."""
    status = next((change for change in row.changes if change.field == "status"), None)
    if not (row.in_a and row.in_b):
        which = "first" if row.in_a else "second"
        return f"only in the {which} run" + ("" if status is None else f" ({status.a or status.b})")
    parts = [] if row.changes[0] is status else [change_text(row.changes[0])]
    if status is not None:
        parts.append(change_text(status) + _reason(row))
    return ", ".join(parts)


def _reason(row: RowDiff) -> str:
    """Why an attempt has failed in one run alone, as ` (CODE: message)`; empty where that is not known."""
    differences = [
        difference for change in row.changes if change.field == "error" for difference in change.paths
    ]
    members = {
        difference.path: difference.a if difference.kind == "removed" else difference.b
        for difference in differences
        if difference.kind != "changed"
    }
    found = [text for name in ("code", "message") if isinstance(text := members.get(name), str)]
    return f" ({': '.join(found)[:REASON_CHARS]})" if found else ""


def change_text(change: FieldChange) -> str:
    """A change of a field, such as `output differs at text: "gut" / "good"`."""
    name = _WORDS.get(change.field, change.field)
    if change.field in CONTENT_FIELDS:
        if not change.paths:
            return f"{name} differs, or is too large to compare"
        first, more = change.paths[0], len(change.paths) - 1
        values = " / ".join(brief_pair(first.a, first.b))
        if first.kind != "changed":
            which, value = ("second", first.b) if first.kind == "added" else ("first", first.a)
            values = f"only in the {which} run, {brief(value)}"
        others = f" and {'at least ' if change.cut else ''}{more:,} more" if more else ""
        return f"{name} differs at {first.path or _WHOLE}: {values}{others}"
    return f"{name} differs: {plain_text(change.field, change.a)} / {plain_text(change.field, change.b)}"


def plain_text(field: str, value: Any) -> str:
    """The value of a field that is no content, with its unit."""
    if value is None:
        return "none"
    match field:
        case "tokens":
            return f"{value['total']:,}"
        case "costUsd":
            return f"${value}"
        case "durationMs":
            return f"{value:,} ms"
        case "inputSizeBytes" | "outputSizeBytes":
            return f"{value:,} bytes"
    return str(value)
