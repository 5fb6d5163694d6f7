"""The rows of attempts that a store keeps, made of what the fold has changed."""

from collections.abc import Sequence

from msgspec import json

from runglass.engine.journal.checkpoints import path_text
from runglass.log.fold import StepChange
from runglass.store.records import StepRow


def step_rows(changes: Sequence[StepChange]) -> list[StepRow]:
    """One row for each change, with its StepTrace as JSON."""
    return [
        StepRow(
            position,
            step.step_id,
            path_text(step.loop_path),
            step.attempt,
            step.status,
            json.encode(step),
        )
        for position, step in changes
    ]
