"""What differs between two runs, as the server tells it and a caller reads it: the diff of two traces.

Plain values shared by client and server; `trace_diff.py` makes them.
"""

from typing import Any, Literal

import msgspec

from runglass.diff.json_diff import ChangeKind
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

    `changes` are empty for one that is the same in both.
    """

    step_id: str
    loop_path: tuple[int, ...] | None = None
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
