"""Statements that both kinds of store make alike, as work that does no I/O: a store performs it.

Work is one statement, or a generator that yields each with its values and gets all of its rows. The SQL is
PostgreSQL's, with `?1`, `?2`, … for the values; what SQLite says in another way, its `perform` puts in.
"""

from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, TypeVar

Result = TypeVar("Result")
Shape = TypeVar("Shape")

ALL_ROWS = 2**53
"""A LIMIT that is none."""


class Ask(NamedTuple, Generic[Result]):
    """One statement, and what is made of its rows."""

    sql: str
    values: tuple[Any, ...]
    result: Callable[[list[Any]], Result]


Steps = Generator[tuple[Any, ...], list[Any], Result]
Work = Ask[Result] | Callable[[], Steps[Result]]


def one(shape: Callable[[Any], Shape], sql: str, *values: Any) -> Ask[Shape | None]:
    """The first row."""
    return Ask(sql, values, lambda rows: shape(rows[0]) if rows else None)


def every(shape: Callable[[Any], Shape], sql: str, *values: Any) -> Ask[list[Shape]]:
    """All rows."""
    return Ask(sql, values, lambda rows: [shape(row) for row in rows])


def done(sql: str, *values: Any) -> Ask[None]:
    """The statement, and nothing of its rows."""
    return Ask(sql, values, lambda rows: None)


class Statements:
    """Performs shared work on the `connections` of a store, whose own kind of work `perform` makes of it."""

    def __init__(self, connections: Any, perform: Callable[[Any, Ask[Any] | Steps[Any]], Any]) -> None:
        self._db = connections
        self._perform = perform

    async def write(self, work: Work[Result]) -> Result:
        """As of the store's connections, like the three below."""
        result: Result = await self._db.write(self._of_store(work))
        return result

    async def read(self, work: Work[Result]) -> Result:
        result: Result = await self._db.read(self._of_store(work))
        return result

    async def look_up(self, work: Work[Result]) -> Result:
        result: Result = await self._db.look_up(self._of_store(work))
        return result

    async def read_inline(self, work: Work[Result]) -> Result:
        result: Result = await self._db.read_inline(self._of_store(work))
        return result

    def _of_store(self, work: Work[Any]) -> Callable[[Any], Any]:
        # A generator is made with each try.
        return lambda db: self._perform(db, work if isinstance(work, Ask) else work())
