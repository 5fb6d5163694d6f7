"""An SQLite file as a whole: measured, checked, rebuilt, copied while others write, and upgraded.

For commands that work beside a server, or instead of one. Blocking; each opens the file for itself.
"""

import errno
import logging
import os
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from runglass.errors import StoreError, UpgradeRequired
from runglass.store.integrity import USUAL, Checked, CheckLimits, IntegrityCheck, Kind
from runglass.store.run_tables import SIZES
from runglass.store.sqlite.migrations import migrate_sqlite, require_upgraded, schema_of
from runglass.store.sqlite.reserve import Reserve, reason
from runglass.store.sqlite.sql_helpers import SQLITE, page, perform

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 10.0


class ProjectUsage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The room that the runs of a project take. Bytes are those of the data, without what SQLite adds to it.

    `step_bytes` are the steps of traces, snapshots included; `outcome_bytes` what callers are owed;
    `open_bytes` what runs that have not ended need to go on.
    """

    org: str
    project: str
    runs: int = 0
    events: int = 0
    event_bytes: int = 0
    steps: int = 0
    step_bytes: int = 0
    outcome_bytes: int = 0
    open_bytes: int = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The size of a database on disk. `free_bytes` of `file_bytes` hold nothing, `log_bytes` come on top.

    `purged_runs` are gone and still have rows to be removed. Free space goes back to the system by itself
    where `gives_back` is true, else with `runglass data vacuum`.
    """

    file_bytes: int
    free_bytes: int
    log_bytes: int
    gives_back: bool
    purged_runs: int
    projects: list[ProjectUsage]


_FIGURES = {
    "event": ("events", "event_bytes"),
    "step": ("steps", "step_bytes"),
    "step_attempt": ("steps", "step_bytes"),
    "run_outcome": (None, "outcome_bytes"),
    "call_answer": (None, "outcome_bytes"),
    "owed": (None, "outcome_bytes"),
    "run_request": (None, "open_bytes"),
    "checkpoint": (None, "open_bytes"),
}
"""The figures of a project to which the rows of a table, and their bytes, are added."""


_KIND = Kind(
    sql=SQLITE,
    page=page,
    errors="SELECT id FROM (SELECT * FROM (SELECT * FROM error_of_run EXCEPT SELECT * FROM run_error)"
    " UNION SELECT * FROM (SELECT * FROM run_error EXCEPT SELECT * FROM error_of_run)) GROUP BY id",
    columns_of=lambda summary: {},
)


def usage(path: Path) -> Usage:
    """The usage of the file, as of one moment. Reads every row's head. Raises StoreError."""
    with opened(path) as db:
        require_upgraded(db, path)
        db.execute("BEGIN")
        runs = dict(db.execute("SELECT project_id, count(*) FROM run GROUP BY 1"))
        figures: dict[int, Counter[str]] = defaultdict(Counter)
        for table, (rows, size) in _FIGURES.items():
            # Sizes are in the heads of rows, so no data is read.
            sizes = SIZES.get(table, "length(data)")
            sql = f"SELECT run.project_id, count(*), sum({sizes}) FROM run JOIN {table} ON run_no = run.no"
            for project_id, count, total in db.execute(f"{sql} GROUP BY 1"):
                figures[project_id] += Counter({rows: count, size: total} if rows else {size: total})
        projects = [
            ProjectUsage(org=org, project=name, runs=runs.get(project_id, 0), **figures[project_id])
            for project_id, org, name in db.execute("SELECT id, org, name FROM project ORDER BY org, name")
        ]
        (purged,) = db.execute("SELECT count(*) FROM purged_run").fetchone()
        pages, free, size, mode = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size", "auto_vacuum")
        )
    _, log = _state(path)
    return Usage(
        file_bytes=pages * size,
        free_bytes=free * size,
        log_bytes=log[0] if log else 0,
        gives_back=mode != 0,
        purged_runs=purged,
        projects=projects,
    )


def check(path: Path, *, every_run: bool, tell: Callable[[int, int], None]) -> Checked:
    """Checks the file as of one moment; others may go on. Folds every run, or a sample. Raises StoreError."""
    with opened(path) as db:
        require_upgraded(db, path)
        db.execute("BEGIN")
        return check_on(db, every_run=every_run, tell=tell)


def check_on(
    db: sqlite3.Connection, *, every_run: bool, tell: Callable[[int, int], None], limits: CheckLimits = USUAL
) -> Checked:
    """`check`, on a connection with a transaction."""
    damage = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
    if damage:
        # Further mistakes in a damaged file say nothing.
        return Checked(0, 0, [f"the file is damaged: {line}" for line in damage])
    return perform(IntegrityCheck(_KIND, every_run=every_run, tell=tell, limits=limits).work, db)


def rebuild(path: Path) -> None:
    """Writes the file anew without free space; later on it gives space back by itself.

    No other process can write meanwhile, so no server may work on it. Takes as much disk space again while it
    lasts; where that is missing, the file is left as it was. Raises StoreError.
    """
    with opened(path) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


_UNWRITTEN = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
"""What a backup says of its copy: it writes nothing else."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""What file systems without hard links say to one, as FAT and some network drives."""


def back_up(path: Path, target: Path) -> None:
    """A copy of the database as of one moment, though others write. `target` is whole or not there at all.

    Raises FileExistsError for a target that exists, OSError, StoreError.
    """
    if target.exists():
        raise FileExistsError(f"{str(target)!r} exists")
    # For the owner's eyes alone, as the database itself.
    handle, name = tempfile.mkstemp(".part", f".{target.name}.", target.parent)
    part = Path(name)
    try:
        os.close(handle)
        with opened(path) as db, closing(sqlite3.connect(part)) as copy:
            # Of one moment: else each write of others would begin the copy anew. In steps, to hear signals.
            db.execute("BEGIN")
            db.execute("SELECT 1 FROM sqlite_schema").fetchone()
            try:
                db.backup(copy, pages=1_000, progress=lambda *_: None)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in _UNWRITTEN:
                    raise
                is_full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
                raise OSError(errno.ENOSPC if is_full else errno.EIO, str(error)) from error
            # The log of a busy server is not held back any longer than it takes to copy.
            db.execute("COMMIT")
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise StoreError(f"the copy of {str(path)!r} is damaged, as the database may be: {found}")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        try:
            # A link and no rename, which would replace a file that another process has just made.
            os.link(part, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Its name is taken by an empty file, for the moment until the copy replaces that.
            target.touch(0o600, exist_ok=False)
            try:
                part.replace(target)
            except BaseException:
                target.unlink()
                raise
    finally:
        for leftover in (part, *(part.with_name(part.name + end) for end in ("-wal", "-shm", "-journal"))):
            leftover.unlink(missing_ok=True)


def upgrade(path: Path, *, with_copy: bool = True) -> None:
    """Brings a database of an older version to the schema of this one. Says so before, and copies the file.

    No other process may work on it. Raises StoreError.
    """
    if not path.exists():
        return
    with opened(path) as db:
        try:
            require_upgraded(db, path)
            return
        except UpgradeRequired:
            schema = schema_of(db)
        reserve = Reserve(path)
        if reserve.is_short:
            # For the copy and the changes.
            reserve.give_up()
        copy = path.with_name(f"{path.stem}-schema-{schema}-{datetime.now(UTC):%Y%m%dT%H%M%S}{path.suffix}")
        as_it_was = f"it is copied to {str(copy)!r} first" if with_copy else "no copy is made"
        log.warning("upgrading the database %r, which has schema %d: %s", str(path), schema, as_it_was)
        # Of upgrades that were killed: each further try would leave another one.
        for part in path.parent.glob(f".{path.stem}-schema-*.part*"):
            part.unlink(missing_ok=True)
        if with_copy:
            try:
                back_up(path, copy)
            except OSError as error:
                raise StoreError(
                    f"the copy {str(copy)!r} cannot be written: {error}; the database is as it was. Make"
                    " room, or run `runglass migrate --no-backup`"
                ) from error
        migrate_sqlite(db)
    log.info("upgraded the database %r", str(path))


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a file that is there, to read where it can only be read. Raises StoreError."""
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    before = _state(path)
    has_no_log = mode == "ro" and before[1] is None
    if has_no_log:
        # Else SQLite would make one: on such a disk it cannot, and elsewhere the owner's server could not
        # write to a log that is another user's. But so it sees nothing of a server that starts meanwhile.
        mode += "&immutable=1"
    address = f"{path.absolute().as_uri()}?mode={mode}"
    try:
        with closing(
            sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        ) as connection:
            Reserve(path).make_room_for(connection)
            yield connection
    except sqlite3.Error as error:
        raise StoreError(f"the database {str(path)!r} cannot be used: {reason(error)}") from error
    finally:
        if has_no_log and _state(path) != before:
            # What was found is of several moments: it may look damaged, and need not be.
            raise StoreError(f"the database {str(path)!r} was changed while it was read; try again")


def _state(path: Path) -> list[tuple[int, int] | None]:
    """Size and time of the file, and of its log; None for one that is not there, or cannot be seen."""
    found: list[tuple[int, int] | None] = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            state = file.stat()
            found.append((state.st_size, state.st_mtime_ns))
        except OSError:
            found.append(None)
    return found
