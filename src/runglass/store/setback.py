"""Says that the store has lost events of a run: in the store itself, in the log and in the metrics.

How somebody came to know of it is not known here.
"""

import logging

from runglass.log.measurements import measured
from runglass.store.protocols.run_log import RunLog
from runglass.store.records import RunRecord

log = logging.getLogger(__name__)


async def record_loss(
    store: RunLog, run_id: str, project_id: int, *, had: int, now: RunRecord | None
) -> None:
    """Notes that the run had its events up to `had`, and is what it is `now`, None where it is gone.

    Says nothing where another process has noted it, or the run was deleted by hand. Raises StoreError.
    """
    if not await store.note_setback(run_id, project_id, had=had):
        return
    measured.setback_runs["lost" if now is None else "set_back"] += 1
    about = {"project_id": project_id}
    if now is None:
        told = "the store has gone back, and run %s is lost: %d events were stored"
        log.error(told, run_id, had, extra=about)
    else:
        log.error(
            "the store has gone back, and run %s has %d events, and %d were stored, or others: it goes on"
            " from what the store has",
            *(run_id, now.head, had),
            extra=about,
        )
