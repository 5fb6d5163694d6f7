"""Many runs that wait in the queue of a PostgreSQL, made from one that waits there."""

from bench.postgres import PostgresServer

AT_ONCE = 500

# The run's id is in its summary as well.
_LIKE = """
SELECT count(*) FROM
  (SELECT run.*, request FROM run JOIN run_request ON run_no = no WHERE id = $1) AS one,
  LATERAL (
    SELECT gen_random_uuid()::text AS id FROM generate_series(1, $2::bigint) WHERE one.no IS NOT NULL
  ) AS new,
  LATERAL create_run(
    to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), new.id, one.project_id, one.flow_id,
    one.version, one.trigger_type, one.capture, NULL, one.request,
    convert_to(replace(convert_from(one.summary, 'UTF8'), one.id, new.id), 'UTF8'), NULL, one.key_id,
    NULL, NULL
  )
"""


def add_runs(server: PostgresServer, database: str, like: str, runs: int) -> None:
    """Queues so many runs as the one with this id, which nobody has claimed."""
    # Each run changes the row of its project: in one transaction, all versions of that would be gone through.
    for first in range(0, runs, AT_ONCE):
        count = min(AT_ONCE, runs - first)
        if server.ask(_LIKE, like, count, database=database) != count:
            raise ValueError(f"the run {like!r} does not wait")
