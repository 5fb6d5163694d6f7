"""Appends as the rows that the function `append_rows` of the database takes."""

from collections.abc import Iterable, Sequence
from typing import Any

from runglass.store.postgres.run_rows import RunFacts
from runglass.store.records import Append, StepRow


def tables_of(batches: Sequence[tuple[bytes, Append]]) -> list[list[tuple[Any, ...]]]:
    """The rows of batches of as many runs, each with its id, as seven tables.

    These are batches, events, latest and earlier attempts, checkpoints, owed and dropped.
    """
    tables: tuple[list[tuple[Any, ...]], ...] = ([], [], [], [], [], [], [])
    rows, events, latest, earlier, checkpoints, owed, dropped = tables
    for batch_id, batch in batches:
        run_no, last = batch.run_no, batch.head + len(batch.events)
        rows.append(_row(batch_id, batch))
        events += [(run_no, seq, data) for seq, data in enumerate(batch.events, batch.head + 1)]
        of_step, before = split_attempts(batch.steps)
        latest += [(run_no, *step) for step in of_step]
        earlier += [(run_no, *step) for step in before]
        kept = {(each.step_id, each.loop_path): each.data for each in batch.checkpoints}
        checkpoints += [(run_no, *key, last, data) for key, data in kept.items()]
        owed += [(run_no, *each) for each in batch.owed]
        dropped += [(run_no, step_id) for step_id in dict.fromkeys(batch.dropped)]
    return list(tables)


def split_attempts(steps: Iterable[StepRow]) -> tuple[list[StepRow], list[StepRow]]:
    """The last state of each step, and the last states of the attempts before it."""
    states: dict[int, dict[int, StepRow]] = {}
    newest: dict[int, int] = {}
    for step in steps:
        states.setdefault(step.position, {})[step.attempt] = step
        newest[step.position] = step.attempt
    latest = [states[position].pop(attempt) for position, attempt in newest.items()]
    return latest, [step for attempts in states.values() for step in attempts.values()]


def _row(batch_id: bytes, batch: Append) -> tuple[Any, ...]:
    return (
        *(batch.run_no, batch.head, batch.fence, len(batch.events), batch_id),
        *(batch.status, batch.summary, batch.owner, batch.log_bytes, batch.open_bytes),
        *(batch.spent_usd, batch.reserved_usd),
        *RunFacts.of(batch.summary),
        *(batch.ended_at, *batch.numbers),
        *(batch.result, batch.error),
    )
