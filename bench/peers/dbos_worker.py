"""A process of several that take workflows of no-op steps from one queue in DBOS, on PostgreSQL.

`python -m bench.peers.dbos_worker ADDRESS NAME PLACES`: so many workflows go on in it at once. It answers
once it takes work; `dbos_submitter.py` gives it some.
"""

import sys

from dbos import DBOS, DBOSConfig

from bench.answering import answer
from bench.peers.dbos_steps import chain

QUEUE = "bench"
VERSION = "bench"
WORKFLOW = chain.__qualname__
POLL_S = 0.25
"""By default it looks once a second, which would be a part of what is measured."""


def main() -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": sys.argv[1],
        "log_level": "ERROR",
        "run_admin_server": False,
        "application_version": VERSION,
        "executor_id": sys.argv[2],
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(
        QUEUE,
        worker_concurrency=int(sys.argv[3]),
        polling_interval_sec=POLL_S,
        on_conflict="always_update",
    )
    answer(lambda message: message)


if __name__ == "__main__":
    main()
