"""Statements that both kinds of store make alike, as work that does no I/O: a store performs it.

Work is one statement, or a generator that yields one after the other and gets what it makes of its rows. The
SQL is PostgreSQL's, with `:name` for the value of that name and `now()` for the time as a text; what SQLite
says in another way, its `perform` puts in. For what each kind of store does in its own way a generator yields
a function of a connection, and gets what that returns. Modules with such work have annotations as texts (from
`__future__`): a nested function would evaluate its own with each call.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

Result = TypeVar("Result")
Shape = TypeVar("Shape")

ALL_ROWS = 2**53
"""A LIMIT that is none."""
COUNT_BYTES = "SELECT count_bytes(:project_id, :size)"
COUNT_OPEN = "SELECT count_open(:run_no, :size)"
COUNT_KEPT = "SELECT count_kept(CAST(:runs AS bigint[]))"


class Ask(Struct, Generic[Result], frozen=True):
    """One statement, and what is made of its rows."""

    sql: str
    values: Mapping[str, Any]
    result: Callable[[list[Any]], Result]


class ForEach(NamedTuple):
    """One statement, made for each of these with its values by name."""

    sql: str
    values: Sequence[Mapping[str, Any]]


Steps = Generator[Ask[Any] | ForEach | Callable[[Any], Any], Any, Result]
Work = Ask[Result] | Callable[[], Steps[Result]]


def fetch(sql: str, /, **named: Any) -> Ask[list[Any]]:
    """All rows as they are."""
    return Ask(sql, named, lambda found: found)


def one(shape: Callable[[Any], Shape], sql: str, /, **named: Any) -> Ask[Shape | None]:
    """The first row."""
    return Ask(sql, named, lambda rows: shape(rows[0]) if rows else None)


def every(shape: Callable[[Any], Shape], sql: str, /, **named: Any) -> Ask[list[Shape]]:
    """All rows."""
    return Ask(sql, named, lambda rows: [shape(row) for row in rows])


as_bytes: Callable[[Any], bytes] = itemgetter(0)
"""The value of a row that has only one."""


def as_int(row: Any) -> int:
    """The value of a row that has only one."""
    return int(row[0])


def changed(sql: str, /, **named: Any) -> Ask[int]:
    """How many rows the statement changed."""
    return Ask(f"{sql} RETURNING 1", named, len)


def done(sql: str, /, **named: Any) -> Ask[None]:
    """The statement, and nothing of its rows."""
    return Ask(sql, named, lambda rows: None)


NEW_RUN_NO: Ask[int] = Ask("SELECT new_run_no()", {}, lambda rows: int(rows[0][0]))
"""The number of a run to create, which no other one gets, nor had."""


def next_change(project_id: int) -> Ask[int]:
    """The number of a change of the project's runs, in the order of commits."""
    sql = "SELECT new_changes(:project_id, 1)"
    return Ask(sql, {"project_id": project_id}, lambda rows: int(rows[0][0]))


def count_bytes(project_id: int, size: int) -> Ask[None]:
    """Adds to the counted bytes of the runs of a project; less than 0 subtracts."""
    return done(COUNT_BYTES, project_id=project_id, size=size)


def count_open(run_no: int, size: int) -> Ask[None]:
    """Adds to the counted bytes of a run beside its log; less than 0 subtracts."""
    return done(COUNT_OPEN, run_no=run_no, size=size)


def count_kept(runs: Sequence[int]) -> Ask[None]:
    """Counts anew what is kept of ended runs for their callers, of each once its checkpoints are gone."""
    return done(COUNT_KEPT, runs=list(runs))


class Statements:
    """Performs shared work on the `connections` of a store, by `perform` of its own."""

    def __init__(self, connections: Any, perform: Callable[[Work[Any], Any], Any]) -> None:
        self._db = connections
        self._perform = perform

    def write(self, work: Work[Result]) -> Awaitable[Result]:
        """As of the store's connections, like those below."""
        return self._by(self._db.write, work)

    def remove(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.remove, work)

    def read(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.read, work)

    def read_at_one_moment(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.read_at_one_moment, work)

    def look_up(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.look_up, work)

    def look_up_at_one_moment(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.look_up_at_one_moment, work)

    def read_inline(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.read_inline, work)

    def _by(self, way: Callable[[Any], Awaitable[Result]], work: Work[Result]) -> Awaitable[Result]:
        return way(partial(self._perform, work))
