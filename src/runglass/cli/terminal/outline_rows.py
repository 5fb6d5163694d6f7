"""The outline of a run, whole, for what is drawn of it: rows in pre-order, kept as columns.

A run may have a million rows: as objects they would take some hundred bytes each, here they take sixty.
"""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from runglass.outlines.outline import NONE, OutlinePage


class StepAddress(NamedTuple):
    """What names one attempt of a step: `loop_path` has the iterations around it, outermost first."""

    step_id: str
    loop_path: tuple[int, ...]
    attempt: int

    def __str__(self) -> str:
        where = f" [{'.'.join(map(str, self.loop_path))}]" if self.loop_path else ""
        return f"{self.step_id}{where}"


class OutlineRows:
    """Rows of an outline, page after page; `finish` comes after the last. `total` is how many the run has."""

    def __init__(self) -> None:
        self.total = 0
        self.names: list[str] = []
        self.parent = array("i")
        self.depth = array("i")
        self.index = array("i")
        self.attempt = array("i")
        self.attempts = array("i")
        self.start = array("q")
        self.end = array("q")
        self.tokens = array("q")
        self.cost: list[str | None] = []
        self.cut: list[int] = []
        self.size = array("i")
        self._kinds: list[str] = []
        self._statuses: list[str] = []
        self._kind = array("b")
        self._name = array("i")
        self._status = array("b")

    def __len__(self) -> int:
        return len(self.parent)

    def add(self, page: OutlinePage) -> None:
        """Takes in the rows that follow."""
        self.total, self.names = page.row_count, page.names
        self._kinds, self._statuses = page.kinds, page.statuses
        columns = page.columns
        for mine, others in (
            (self.parent, columns.parent),
            (self.depth, columns.depth),
            (self.index, columns.index),
            (self.attempt, columns.attempt),
            (self.attempts, columns.attempts),
            (self.start, columns.start),
            (self.end, columns.end),
            (self.tokens, columns.tokens),
            (self._kind, columns.kind),
            (self._name, columns.name),
            (self._status, columns.status),
        ):
            mine.extend(others)
        self.cost.extend(columns.cost)
        self.cut.extend(page.cut)

    def finish(self) -> None:
        """Counts the rows in and below each row."""
        self.size = array("i", [1]) * len(self)
        for row in range(len(self) - 1, -1, -1):
            if self.parent[row] != NONE:
                self.size[self.parent[row]] += self.size[row]

    def kind(self, row: int) -> str:
        """What a row is of: step, loop, parallel, condition, iteration, branch or attempt."""
        return self._kinds[self._kind[row]]

    def name(self, row: int) -> str:
        """The step's id; of an iteration that of its loop, of a branch its name."""
        return self.names[self._name[row]]

    def status(self, row: int) -> str:
        """The status of a row, which is the worst of what is inside of it."""
        return self._statuses[self._status[row]]

    def rank(self, row: int) -> int:
        """How bad the status of a row is: a higher number is worse."""
        return self._status[row]

    def children(self, parent: int) -> Iterator[int]:
        """The rows right inside of a row, or with -1 those at the top."""
        row, stop = parent + 1, len(self) if parent == NONE else parent + self.size[parent]
        while row < stop:
            yield row
            row += self.size[row]

    def rows_with(self, *statuses: str) -> Iterator[int]:
        """The leaf rows, each an attempt that was made or a step that had one, with one of the statuses."""
        numbers = {at for at, status in enumerate(self._statuses) if status in statuses}
        for row, status in enumerate(self._status):
            if status in numbers and self.size[row] == 1 and self.kind(row) in ("step", "attempt"):
                yield row

    def took_ms(self, row: int) -> int | None:
        """From the first start to the last end in a row; None where there is none, or none yet."""
        if self.start[row] == NONE or self.end[row] == NONE:
            return None
        return self.end[row] - self.start[row]

    def loop_path(self, row: int) -> tuple[int, ...]:
        """The iterations around a row, or that it is, outermost first."""
        path = []
        while row != NONE:
            if self.index[row] != NONE:
                path.append(self.index[row])
            row = self.parent[row]
        return tuple(reversed(path))

    def address(self, row: int) -> StepAddress:
        """What names the attempt in a row, or the latest of a step."""
        return StepAddress(self.name(row), self.loop_path(row), self.attempt[row])

    def attempts_of(self, row: int) -> int:
        """How many attempts the step has that a row is an attempt of, or is."""
        return self.attempts[self.parent[row]] if self.kind(row) == "attempt" else self.attempts[row]

    def last_ms(self) -> int:
        """The last moment of which a row tells, counted from the start of the run."""
        return max(max(self.start, default=0), max(self.end, default=0), 0)
