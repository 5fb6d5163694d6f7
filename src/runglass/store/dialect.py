"""What the two databases must say in another way inside of statements that stand once.

Whatever else differs is in `store/sqlite` and `store/postgres`; `docs/stores.md` shows it all.
"""

from typing import NamedTuple


class Dialect(NamedTuple):
    """Snippets of SQL; each kind of store has its own."""

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
