"""Whether an SQLite file is sound and consistent: logs without gaps, traces that are their fold."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from runglass.log.events import decode_event
from runglass.log.fold import DAMAGE, TraceFold
from runglass.log.trace import RunSummary, StepTrace
from runglass.store.run_tables import ROWS_OF_RUN
from runglass.store.sqlite.database_file import opened
from runglass.store.sqlite.migrations import require_upgraded

SAMPLE = 200
"""How many runs are folded, spread over all, where not every one is."""


class Checked(NamedTuple):
    """The checked parts, and their mistakes in one sentence each."""

    runs: int
    folded: int
    problems: list[str]


class _Run(NamedTuple):
    no: int
    id: str
    head: int
    summary: bytes


def check(path: Path, *, every_run: bool) -> Checked:
    """Checks the file as of one moment; others may go on. Folds every run, or a sample. Raises StoreError."""
    with opened(path) as db:
        require_upgraded(db, path)
        db.execute("BEGIN")
        damage = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
        if damage:
            # Further mistakes in a damaged file say nothing.
            return Checked(0, 0, [f"the file is damaged: {line}" for line in damage])
        problems = [*_strays(db), *_gaps(db)]
        numbers = [int(no) for (no,) in db.execute("SELECT no FROM run ORDER BY no")]
        chosen = numbers if every_run else numbers[:: max(1, -(-len(numbers) // SAMPLE))]
        for no in chosen:
            run = _Run(*db.execute("SELECT no, id, head, summary FROM run WHERE no = ?", (no,)).fetchone())
            problems += _unlike_its_log(db, run)
    return Checked(len(numbers), len(chosen), problems)


def _strays(db: sqlite3.Connection) -> Iterator[str]:
    """Rows that belong to nothing."""
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of table {table} belongs to no {parent}"
    for table in ROWS_OF_RUN:
        found = db.execute(
            f"SELECT run_no, count(*) FROM {table} WHERE run_no NOT IN (SELECT no FROM run)"
            " AND run_no NOT IN (SELECT run_no FROM purged_run)"
            " AND run_no NOT IN (SELECT run_no FROM importing_run) GROUP BY run_no"
        )
        for run_no, count in found:
            yield f"table {table} has {count} rows of run number {run_no}, which is not there"
    for key, run_id in db.execute("SELECT key, run_id FROM call WHERE run_id NOT IN (SELECT id FROM run)"):
        yield f"the call {key!r} is of run {run_id}, which is not there"
    for (run_id,) in db.execute("SELECT id FROM run JOIN purged_run ON run_no = no"):
        yield f"run {run_id} is there, and marked as purged"


def _gaps(db: sqlite3.Connection) -> Iterator[str]:
    """Logs that do not count from 1 to their run's head."""
    found = db.execute(
        "SELECT id, head, count(seq), coalesce(min(seq), 1), coalesce(max(seq), 0)"
        " FROM run LEFT JOIN event ON run_no = no GROUP BY no"
        " HAVING count(seq) <> head OR coalesce(min(seq), 1) <> 1 OR coalesce(max(seq), 0) <> head"
    )
    for run_id, head, count, first, last in found:
        yield f"run {run_id} should have events 1 to {head}, and has {count}, from {first} to {last}"


def _unlike_its_log(db: sqlite3.Connection, run: _Run) -> Iterator[str]:
    """Where the stored trace of a run is not what its events add up to."""
    state = TraceFold()
    count = 0
    try:
        for (data,) in db.execute("SELECT data FROM event WHERE run_no = ? ORDER BY seq", (run.no,)):
            count += 1
            state.apply(decode_event(data))
    except DAMAGE as error:
        yield f"event {count} of run {run.id} cannot be read: {error}"
        return
    if not count:
        return
    trace = state.trace()
    try:
        summary = msgspec.json.decode(run.summary, type=RunSummary)
        told = state.summary
        if told.flow_slug is None:
            # Logs of early versions tell neither; the upgrade has taken them from the run's row.
            told = replace(told, flow_slug=summary.flow_slug, session_id=summary.session_id)
        if summary != told:
            yield f"the summary of run {run.id} is not what its events add up to"
        stored = db.execute("SELECT position, data FROM step WHERE run_no = ? ORDER BY position", (run.no,))
        count = 0
        for count, (position, data) in enumerate(stored, 1):
            step = trace.steps[count - 1] if count <= len(trace.steps) else None
            # By their meaning: an earlier version may have spelled the same step in another way.
            if step is None or msgspec.json.decode(data, type=StepTrace) != step:
                yield f"the step at position {position} of run {run.id} is not what its events add up to"
        if count < len(trace.steps):
            yield f"the trace of run {run.id} has {count} steps, its events tell of {len(trace.steps)}"
    except DAMAGE as error:
        yield f"the trace of run {run.id} cannot be read: {error}"
