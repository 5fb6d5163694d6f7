"""Many runs that wait in the queue of a PostgreSQL, made from one that waits there."""

from bench.postgres import PostgresServer

AT_ONCE = 500

# The run's id is in its summary as well.
_LIKE = """
SELECT count(*) FROM
  (SELECT run.*, request, ARRAY[$2::integer] AS size
    FROM run JOIN run_request ON run_no = no WHERE id = $1) AS one,
  (SELECT array_agg(gen_random_uuid()::text) AS ids FROM generate_series(1, $2)) AS new,
  LATERAL create_runs(
    to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), one.project_id, ids,
    array_fill(one.flow_id, size), array_fill(one.version, size), array_fill(one.trigger_type, size),
    array_fill(one.capture, size), array_fill(NULL::text, size), array_fill(one.request, size),
    ARRAY(SELECT convert_to(replace(convert_from(one.summary, 'UTF8'), one.id, id), 'UTF8')
      FROM unnest(ids) AS id),
    array_fill(NULL::text, size), array_fill(one.key_id, size), array_fill(NULL::text, size),
    array_fill(NULL::bytea, size)
  )
"""


def add_runs(server: PostgresServer, database: str, like: str, runs: int) -> None:
    """Queues so many runs as the one with this id, which nobody has claimed."""
    for first in range(0, runs, AT_ONCE):
        count = min(AT_ONCE, runs - first)
        if server.ask(_LIKE, like, count, database=database) != count:
            raise ValueError(f"the run {like!r} does not wait")
