"""Statements that both kinds of store make alike, as work that does no I/O: a store performs it.

Work is one statement, or a generator that yields one after the other and gets what it makes of its rows. The
SQL is PostgreSQL's, with `:name` for the value of that name and `now()` for the time as a text; what SQLite
says in another way, its `perform` puts in. For what each kind of store does in its own way a generator yields
a function of a connection, and gets what that returns. Modules with such work have annotations as texts (from
`__future__`): a nested function would evaluate its own with each call.
"""

from abc import ABC
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from runglass.support.clock import Clock

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


class Dialect(NamedTuple):
    """What the two databases must say in another way inside of statements that stand once.

    Whatever else differs is in `store/sqlite` and `store/postgres`; `docs/stores.md` shows it all.
    """

    project: str
    """Selects projects: in PostgreSQL the totals of each are kept in parts, which are written at once."""
    new_project: str
    """What else there is of each project, by `:project_id`; empty where its row is all."""
    large_value: str
    """More than a page of a file has: in PostgreSQL a text, in SQLite bytes."""
    changes: str
    """The number of the newest change, as `last`, by `project_id`: PostgreSQL has a row of its own for it."""
    moment: str
    """The time of now, to be compared with that of a lease."""
    next_fence: str
    """The fence of a run that somebody else takes up: in PostgreSQL a random one above it."""
    set_weight: str
    """Gives `:project_id` its `:weight`, if it has another one: where its changes are numbered."""
    new_import: str
    """Notes that run `:run_no` is being imported, in PostgreSQL by whom, as there may be many processes."""
    has_content: str
    """The condition for runs whose content is there, as their index has it."""
    forget_runs: str
    """What else there is of purged runs, by their `:ids` or the `:last` of their numbers."""
    tables_of_runs: str
    """Each table with rows of runs, with its column that says of which; each has a catalog of its own."""
    note_error: str
    """Has the error of run `:run_no` found by its text; empty where a trigger does it."""
    abandoned: str
    """The condition for imports that nobody goes on with: those of this process are `:own`."""


def subtract(count: Callable[[int, int], Ask[None]], sizes: Iterable[tuple[int, int]]) -> Steps[None]:
    """Counts so many bytes less of these projects or runs, of each once and in their order."""
    freed: dict[int, int] = {}
    for number, size in sizes:
        freed[number] = freed.get(number, 0) + size
    for number, size in sorted(freed.items()):
        yield count(number, -size)


class StorePart(ABC):
    """A part of a store: performs shared work on the connections of the store, by `_perform` of its kind."""

    _db: Any
    _perform: Callable[[Work[Any], Any], Any]
    _sql: Dialect
    clock: Clock
    """The clock that all processes of the store go by: what one dates another compares with now.

    It is right from when the store is open.
    """
    _deleted = True
    """Whether content was deleted since the last `scrub`, maybe by the process before this one."""
    _errors_deleted = True
    """The same of runs and of their errors, whose table is never empty."""

    def _columns_of(self, summary: bytes) -> Mapping[str, Any]:
        """The columns of a run's row that follow from its summary, and are there for queries alone."""
        return {}

    def _write(self, work: Work[Result]) -> Awaitable[Result]:
        """As of the store's connections, like those below."""
        return self._by(self._db.write, work)

    def _remove(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.remove, work)

    def _read(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.read, work)

    def _read_at_one_moment(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.read_at_one_moment, work)

    def _look_up(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.look_up, work)

    def _look_up_at_one_moment(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.look_up_at_one_moment, work)

    def _read_inline(self, work: Work[Result]) -> Awaitable[Result]:
        return self._by(self._db.read_inline, work)

    def _by(self, way: Callable[[Any], Awaitable[Result]], work: Work[Result]) -> Awaitable[Result]:
        return way(partial(self._perform, work))
