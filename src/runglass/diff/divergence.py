"""What differs between two runs, said in words: a change, the address of an attempt, the first difference.

For servers and terminals alike. No I/O.
"""

from collections.abc import Sequence
from typing import Any

from runglass.diff.json_excerpt import brief, brief_pair
from runglass.diff.run_diff import CONTENT_FIELDS, Divergence, FieldChange, RowDiff, ValueChange

_WORDS = {
    "inputSizeBytes": "size of the input",
    "outputSizeBytes": "size of the output",
    "modelUsed": "model",
    "modelRequests": "request to the model",
    "modelResponses": "answer of the model",
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
    name = field_text(change.field)
    if change.field in CONTENT_FIELDS:
        if not change.paths:
            return f"{name} differs, or is too large to tell"
        more = len(change.paths) - 1
        others = f" and {'at least ' if change.cut else ''}{more:,} more" if more else ""
        return f"{name} differs at {value_text(change.paths[0])}{others}"
    return f"{name} differs: {plain_text(change.field, change.a)} / {plain_text(change.field, change.b)}"


def field_text(field: str) -> str:
    """The name of a field of attempts for people."""
    return _WORDS.get(field, field)


def value_text(change: ValueChange) -> str:
    """A change inside of a value, such as `items[2]: 4 / 5`."""
    where = change.path or _WHOLE
    if change.kind == "added":
        return f"{where}: only in the second run, {brief(change.b)}"
    if change.kind == "removed":
        return f"{where}: only in the first run, {brief(change.a)}"
    return f"{where}: {' / '.join(brief_pair(change.a, change.b))}"


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
