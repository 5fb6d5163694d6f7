"""The rows that an append writes, in one transaction that it shares with others."""

import sqlite3
from collections.abc import Sequence
from decimal import Decimal

from msgspec import structs

from runglass.log.money import add_usd, format_usd
from runglass.log.trace import TERMINAL
from runglass.store.records import LARGE_RUN_EVENTS, Append, StepRow
from runglass.store.run_tables import IS_RECORDED
from runglass.store.sqlite.sql_helpers import NOW, SQLITE, count_kept, count_open

AT_ONCE_EVENTS = 1000
AT_ONCE_BYTES = 1 << 20
"""A run with no more events and bytes of checkpoints has these deleted as it ends or goes back, any other bit
by bit after that: each byte is overwritten, and other writers wait for it."""

_VOID = (
    "INSERT OR REPLACE INTO void_checkpoint (run_no, step_id, seq) SELECT ?1, ?2, ?3"
    " WHERE EXISTS (SELECT 1 FROM checkpoint WHERE run_no = ?1 AND step_id = ?2)"
)

# A column that is set counts as changed, and SQLite writes each index that has it: those with the status, and
# with what a run adds up to, or the owner, are written when these change and not with each append.
_MOVE = (
    "UPDATE run SET head = :last, summary = :summary, log_bytes = log_bytes + :log_bytes,"
    " open_bytes = open_bytes + :open_bytes{} WHERE no = :run_no AND head = :head AND fence = :fence"
)
_NEXT_STATUS = (
    ", owner = :owner, status = :status,"
    " change_no = coalesce((SELECT run_changes + 1 FROM project WHERE id = project_id), 0)"
)
_NUMBERS = ", ended_at = :ended_at, duration_ms = :duration_ms, cost_usd = :cost_usd, tokens = :tokens"
_GO_ON = f"{_MOVE.format('')} AND status = :status AND owner IS :owner"
_CHANGE_STATUS = _MOVE.format(_NEXT_STATUS)
_END = _MOVE.format(_NEXT_STATUS + _NUMBERS)
_LET_GO = (
    "INSERT INTO queue (run_no, project_id) SELECT no, project_id FROM run WHERE no = ?"
    f" AND NOT {IS_RECORDED} ON CONFLICT DO NOTHING"
)
_STEP = (
    "INSERT INTO step (run_no, position, step_id, loop_path, attempt, status, data)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_no, position) DO UPDATE SET"
    " attempt = excluded.attempt, status = excluded.status, data = excluded.data"
)


def write_append(db: sqlite3.Connection, batch: Append) -> None:
    """Writes the batch. Raises WrongExpectedVersion before the first write, or not at all."""
    # First, and alone able to refuse: a WrongExpectedVersion must leave the shared transaction untouched.
    is_change = _move(db, batch)
    if is_change and batch.owner is None and batch.status in ("pending", "running"):
        db.execute(_LET_GO, (batch.run_no,))
    elif is_change:
        db.execute("DELETE FROM queue WHERE run_no = ?", (batch.run_no,))
    if is_change or batch.log_bytes or batch.open_bytes:
        db.execute(
            "UPDATE project SET data_bytes = data_bytes + ?, run_changes = run_changes + ?"
            " WHERE id = (SELECT project_id FROM run WHERE no = ?)",
            (batch.log_bytes + batch.open_bytes, int(is_change), batch.run_no),
        )
    if batch.spent_usd or batch.reserved_usd:
        # Added up here, not by SQLite, whose numbers are too small for exact decimals.
        project_id, spent, reserved = db.execute(
            "SELECT id, spent_usd, reserved_usd FROM project"
            " WHERE id = (SELECT project_id FROM run WHERE no = ?)",
            (batch.run_no,),
        ).fetchone()
        spent = format_usd(add_usd(Decimal(spent), batch.spent_usd))
        reserved = format_usd(add_usd(Decimal(reserved), batch.reserved_usd))
        sql = "UPDATE project SET spent_usd = ?, reserved_usd = ? WHERE id = ?"
        db.execute(sql, (spent, reserved, project_id))
    db.executemany(
        "INSERT INTO event (run_no, seq, data) VALUES (?, ?, ?)",
        [(batch.run_no, seq, data) for seq, data in enumerate(batch.events, batch.head + 1)],
    )
    if batch.renamed:
        # Not with each row: SQLite would write the index by id, too, wherever an id is set.
        db.executemany(
            "DELETE FROM step WHERE run_no = ? AND position = ?",
            [(batch.run_no, position) for position in batch.renamed],
        )
    write_steps(db, batch.run_no, batch.steps)
    if batch.owed:
        db.executemany(
            "INSERT INTO owed (run_no, seq, data) VALUES (?, ?, ?)",
            [(batch.run_no, *owed) for owed in batch.owed],
        )
    if batch.status in TERMINAL:
        if _has_much(db, batch):
            # Its checkpoints count until they are gone.
            db.execute("INSERT OR IGNORE INTO ended_run (run_no) VALUES (?)", (batch.run_no,))
            count_open(db, batch.run_no, len(batch.result or b"") + len(batch.error or b""))
        else:
            db.execute("DELETE FROM checkpoint WHERE run_no = ?", (batch.run_no,))
        db.execute("DELETE FROM run_request WHERE run_no = ?", (batch.run_no,))
        db.execute(
            f"INSERT OR REPLACE INTO run_outcome (run_no, result, error, ended_at) VALUES (?, ?, ?, {NOW})",
            (batch.run_no, batch.result, batch.error),
        )
        if batch.status != "completed":
            db.execute(SQLITE.note_error, {"run_no": batch.run_no})
        if batch.head + len(batch.events) >= LARGE_RUN_EVENTS:
            db.execute("INSERT OR IGNORE INTO due_outline (run_no) VALUES (?)", (batch.run_no,))
        count_kept(db, [batch.run_no])
        return
    if batch.dropped:
        # Void is what earlier appends wrote of these steps; where it is little, it goes at once.
        if _has_much(db, batch):
            db.executemany(_VOID, [(batch.run_no, step_id, batch.head) for step_id in batch.dropped])
        else:
            sql = "DELETE FROM checkpoint WHERE run_no = ? AND step_id = ? RETURNING length(data)"
            freed = [size for each in batch.dropped for (size,) in db.execute(sql, (batch.run_no, each))]
            count_open(db, batch.run_no, -sum(freed))
    if batch.checkpoints:
        seq = batch.head + len(batch.events)
        db.executemany(
            "INSERT OR REPLACE INTO checkpoint (run_no, step_id, loop_path, seq, data)"
            " VALUES (?, ?, ?, ?, ?)",
            [(batch.run_no, step_id, path, seq, data) for step_id, path, data in batch.checkpoints],
        )


def _move(db: sqlite3.Connection, batch: Append) -> bool:
    """Brings the run's row up to date; returns whether its status or its owner has changed.

    Raises WrongExpectedVersion, and has done nothing, if head or fence are not the run's.
    """
    values = {**structs.asdict(batch), "last": batch.head + len(batch.events)}
    if batch.status in TERMINAL:
        moved = db.execute(_END, {**values, **batch.numbers._asdict()})
    elif db.execute(_GO_ON, values).rowcount == 1:
        return False
    else:
        moved = db.execute(_CHANGE_STATUS, values)
    if moved.rowcount == 1:
        return True
    raise batch.refusal


def _has_much(db: sqlite3.Connection, batch: Append) -> bool:
    """Whether to delete the run's checkpoints holds other writers up; most of its open bytes are in them."""
    if batch.head > AT_ONCE_EVENTS:
        return True
    (size,) = db.execute("SELECT open_bytes FROM run WHERE no = ?", (batch.run_no,)).fetchone()
    return int(size) > AT_ONCE_BYTES


def write_steps(db: sqlite3.Connection, run_no: int, steps: Sequence[StepRow]) -> None:
    """Writes states of attempts; the latest of each step is apart from those before it."""
    rows: list[tuple[int | str | bytes, ...]] = []
    for step in steps:
        if step.attempt > 1:
            # The attempt before may be one of these.
            db.executemany(_STEP, rows)
            rows.clear()
            db.execute(
                "INSERT OR IGNORE INTO step_attempt"
                " (run_no, position, attempt, step_id, loop_path, status, data)"
                " SELECT run_no, position, attempt, step_id, loop_path, status, data FROM step"
                " WHERE run_no = ? AND position = ? AND attempt < ?",
                (run_no, step.position, step.attempt),
            )
        rows.append((run_no, *step))
    db.executemany(_STEP, rows)
