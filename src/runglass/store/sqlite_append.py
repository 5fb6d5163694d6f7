"""What an append writes, in one transaction that it shares with others."""

import sqlite3

from runglass.errors import HeadMismatch
from runglass.store.base import Append
from runglass.trace import TERMINAL


def write_append(db: sqlite3.Connection, batch: Append) -> None:
    """Writes the batch. Raises HeadMismatch before the first write, or not at all."""
    head = batch.head + len(batch.events)
    ended = batch.status in TERMINAL
    # First, and alone able to refuse: a HeadMismatch must leave the shared transaction untouched.
    moved = db.execute(
        "UPDATE run SET head = ?, status = ?, summary = ?, totals = ?, owner = ?"
        " WHERE no = ? AND head = ? AND fence = ?",
        (
            head,
            batch.status,
            batch.summary,
            batch.totals,
            batch.owner,
            batch.run_no,
            batch.head,
            batch.fence,
        ),
    ).rowcount
    if moved != 1:
        raise HeadMismatch(
            f"run number {batch.run_no} is not at seq {batch.head} with fence {batch.fence} any more: "
            "another process goes on with it"
        )
    if batch.spent_pico:
        db.execute(
            "UPDATE project SET spent_pico = spent_pico + ?"
            " WHERE id = (SELECT project_id FROM run WHERE no = ?)",
            (batch.spent_pico, batch.run_no),
        )
    db.executemany(
        "INSERT INTO event (run_no, seq, data) VALUES (?, ?, ?)",
        [(batch.run_no, seq, data) for seq, data in enumerate(batch.events, batch.head + 1)],
    )
    for step in batch.steps:
        if step.attempt > 1:
            db.execute(
                "INSERT OR IGNORE INTO step_attempt"
                " (run_no, position, attempt, step_id, loop_path, status, data)"
                " SELECT run_no, position, attempt, step_id, loop_path, status, data FROM step"
                " WHERE run_no = ? AND position = ? AND attempt < ?",
                (batch.run_no, step.position, step.attempt),
            )
        db.execute(
            "INSERT INTO step (run_no, position, step_id, loop_path, attempt, status, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_no, position) DO UPDATE SET"
            " attempt = excluded.attempt, status = excluded.status, data = excluded.data",
            (batch.run_no, *step),
        )
    if batch.owed:
        db.executemany(
            "INSERT INTO owed (run_no, seq, data) VALUES (?, ?, ?)",
            [(batch.run_no, *owed) for owed in batch.owed],
        )
    if ended:
        db.execute("DELETE FROM checkpoint WHERE run_no = ?", (batch.run_no,))
        db.execute("DELETE FROM run_request WHERE run_no = ?", (batch.run_no,))
        db.execute(
            "INSERT OR REPLACE INTO run_outcome (run_no, result, error) VALUES (?, ?, ?)",
            (batch.run_no, batch.result, batch.error),
        )
        return
    if batch.dropped:
        db.executemany(
            "DELETE FROM checkpoint WHERE run_no = ? AND step_id = ?",
            [(batch.run_no, step_id) for step_id in batch.dropped],
        )
    if batch.checkpoints:
        db.executemany(
            "INSERT OR REPLACE INTO checkpoint (run_no, step_id, loop_path, data) VALUES (?, ?, ?, ?)",
            [(batch.run_no, *checkpoint) for checkpoint in batch.checkpoints],
        )
