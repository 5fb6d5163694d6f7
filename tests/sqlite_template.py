"""New SQLite databases for tests: the schema is copied from one database of this process that was migrated.

A suite opens thousands of them, and migrating each takes more processor time than most tests do.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from unittest.mock import patch

from runglass.store.sqlite import connections
from runglass.store.sqlite.migrations import migrate_sqlite


@contextmanager
def copied_schemas() -> Iterator[None]:
    """Until the block ends, a store of this process that finds an empty file copies the schema into it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)) as template:
        # As stores make their files: a copy takes on the whole header of its source.
        template.execute("PRAGMA auto_vacuum = INCREMENTAL")
        migrate_sqlite(template)
        # Two stores may open one new file at once, and the second must not copy over what the first wrote.
        one_at_a_time = threading.Lock()

        def migrate(connection: sqlite3.Connection) -> None:
            with one_at_a_time:
                if connection.execute("PRAGMA schema_version").fetchone() == (0,):
                    template.backup(connection)
            migrate_sqlite(connection)

        with patch.object(connections, "migrate_sqlite", migrate):
            yield
