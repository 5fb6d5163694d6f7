"""The rows of an outline one by one, as files for other programs show them."""

from collections.abc import Iterator
from typing import NamedTuple

from runglass.outlines.outline import KINDS, NONE, STATUSES, Kind, Outline

STEP = KINDS.index("step")
_COLUMNS = (
    *("parent", "depth", "kind", "name", "index", "attempt", "status", "start", "end"),
    *("tokens", "cost", "position", "attempts"),
)


class TreeRow(NamedTuple):
    """A row. `start` and `end` are milliseconds since the run's start; None where there is none yet.

    `position` and `attempt` name the attempt whose data a row shows; `position` is 0 where it shows none.
    """

    number: int
    parent: int
    depth: int
    kind: Kind
    name: str
    iteration: int
    attempt: int
    status: str
    start: int | None
    end: int | None
    tokens: int
    cost_usd: str | None
    position: int

    @property
    def label(self) -> str:
        """The row in words, below those that it is inside of: `each[3]`, `attempt 2`, or the step."""
        match self.kind:
            case "iteration":
                return f"{self.name}[{self.iteration}]"
            case "attempt":
                return f"attempt {self.attempt}"
        return self.name


def tree_rows(outline: Outline, first: int, count: int) -> Iterator[TreeRow]:
    """So many rows from row `first` on, in pre-order."""
    values = zip(*(outline.values(column, first, count) for column in _COLUMNS), strict=True)
    for number, row in enumerate(values, first):
        parent, depth, kind, name, index, attempt, status, start, end, tokens, cost, position, attempts = row
        yield TreeRow(
            number=number,
            parent=parent,
            depth=depth,
            kind=KINDS[kind],
            name=outline.names[name],
            iteration=index,
            attempt=attempt,
            status=STATUSES[status],
            start=None if start == NONE else start,
            end=None if end == NONE else end,
            tokens=tokens,
            cost_usd=cost,
            # Where there were several, each has a row of its own below that of the step.
            position=0 if kind == STEP and attempts > 1 else position,
        )
