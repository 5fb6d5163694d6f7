-- Rows of an append, as a client sends them.
CREATE TYPE batch_row AS (
  no bigint, head bigint, fence bigint, events bigint, batch bytea,
  status text, summary bytea, owner text, log_bytes bigint, open_bytes bigint, spent numeric, reserved numeric,
  started_ms double precision, live_cost double precision, live_tokens bigint, models text, error text,
  ended_at text, duration_ms bigint, cost double precision, tokens bigint, result bytea, error_result bytea
);
CREATE TYPE event_row AS (run_no bigint, seq bigint, data bytea);
CREATE TYPE attempt_row AS (
  run_no bigint, "position" bigint, step_id text, loop_path text, attempt bigint, status text, data bytea
);
CREATE TYPE checkpoint_row AS (run_no bigint, step_id text, loop_path text, seq bigint, data bytea);
CREATE TYPE owed_row AS (run_no bigint, seq bigint, data bytea);
CREATE TYPE dropped_row AS (run_no bigint, step_id text);

-- As `append_batches`, with rows in place of columns, on which a client spends half as long. An append in which no run is
-- begun, ended or let go, as nearly all are, does without the statements for those: with few runs they take longer than
-- what is written. Locks as that does.
CREATE FUNCTION append_rows(
  written_at text, large_run_events bigint, batches batch_row[], new_events event_row[], latest attempt_row[],
  earlier attempt_row[], checkpoints checkpoint_row[], owed_rows owed_row[], dropped dropped_row[]
) RETURNS SETOF bigint LANGUAGE plpgsql
-- The plan that is right for a large table, also while it is small: it is made once.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
  taken bigint[];
  were_queued bigint[];
  is_changed boolean;
  is_counted boolean;
  is_let_go boolean;
  has_end boolean;
  ends CONSTANT text[] := '{completed,failed,cancelled}';
  ended bigint[] := '{}';
  large bigint[] := '{}';
  changed record;
  first_change bigint;
  changed_runs bigint[] := '{}';
  changes bigint[] := '{}';
BEGIN
  SELECT coalesce(array_agg(no), '{}'),
    coalesce(array_agg(no) FILTER (WHERE was_owner IS NULL AND was IN ('pending', 'running')), '{}'),
    bool_or(was <> status), bool_or(log_bytes <> 0 OR open_bytes <> 0 OR spent <> 0 OR reserved <> 0),
    bool_or(owner IS NULL AND status IN ('pending', 'running')), bool_or(status = ANY (ends))
  INTO taken, were_queued, is_changed, is_counted, is_let_go, has_end
  FROM (
    SELECT run.no, run.owner AS was_owner, run.status AS was,
      b.status, b.owner, b.log_bytes, b.open_bytes, b.spent, b.reserved
    FROM unnest(batches) AS b JOIN run ON run.no = b.no
    WHERE run.head = b.head AND run.fence = b.fence AND run.batch IS DISTINCT FROM b.batch
    ORDER BY run.no FOR NO KEY UPDATE OF run
  ) AS locked;

  RETURN QUERY SELECT unnest(taken);
  IF cardinality(taken) < cardinality(batches) THEN
    -- Of a run that is not taken here the answer to an earlier call may have been lost.
    RETURN QUERY SELECT run.no
      FROM unnest(batches) AS b JOIN run ON run.no = b.no
      WHERE NOT b.no = ANY (taken)
        AND run.batch = b.batch AND run.fence = b.fence AND run.head = b.head + b.events;
  END IF;
  IF cardinality(taken) = 0 THEN
    RETURN;
  END IF;

  INSERT INTO event (run_no, seq, data)
    SELECT * FROM unnest(new_events) WHERE run_no = ANY (taken);
  IF cardinality(earlier) > 0 THEN
    INSERT INTO step_attempt (run_no, position, step_id, loop_path, attempt, status, data)
      SELECT * FROM unnest(earlier) WHERE run_no = ANY (taken)
      ON CONFLICT DO NOTHING;
  END IF;
  -- The rows of other months are not looked at where no step is tried again.
  IF EXISTS (SELECT FROM unnest(latest) WHERE attempt > 1) THEN
    INSERT INTO step_attempt (run_no, position, step_id, loop_path, attempt, status, data)
      SELECT step.* FROM unnest(latest) AS s
        JOIN LATERAL (
          SELECT step.run_no, step.position, step.step_id, step.loop_path, step.attempt, step.status, step.data
          FROM step WHERE step.run_no = s.run_no AND step.position = s.position AND step.attempt < s.attempt
        ) AS step ON true
      WHERE s.attempt > 1 AND s.run_no = ANY (taken)
      ON CONFLICT DO NOTHING;
  END IF;
  IF cardinality(latest) > 0 THEN
    INSERT INTO step (run_no, position, step_id, loop_path, attempt, status, data)
      SELECT * FROM unnest(latest) WHERE run_no = ANY (taken)
      ON CONFLICT (run_no, position) DO UPDATE
        SET attempt = excluded.attempt, status = excluded.status, data = excluded.data;
  END IF;
  IF cardinality(owed_rows) > 0 THEN
    INSERT INTO owed (run_no, seq, data)
      SELECT * FROM unnest(owed_rows) WHERE run_no = ANY (taken);
  END IF;

  -- Not each append counts something of its project.
  IF is_counted OR has_end OR cardinality(dropped) > 0 THEN
    INSERT INTO project_total (project_id, slot, data_bytes, spent_usd, reserved_usd)
      SELECT project_id, pg_backend_pid() & 15, sum(b.log_bytes + b.open_bytes), sum(b.spent), sum(b.reserved)
      FROM unnest(batches) AS b JOIN run ON run.no = b.no
      WHERE b.no = ANY (taken) AND (b.log_bytes <> 0 OR b.open_bytes <> 0 OR b.spent <> 0 OR b.reserved <> 0
        -- What is counted of these comes behind, and their projects are to be locked in this order all the same.
        OR b.status = ANY (ends) OR b.no IN (SELECT run_no FROM unnest(dropped)))
      GROUP BY project_id ORDER BY project_id
      ON CONFLICT (project_id, slot) DO UPDATE SET
        data_bytes = project_total.data_bytes + excluded.data_bytes,
        spent_usd = project_total.spent_usd + excluded.spent_usd,
        reserved_usd = project_total.reserved_usd + excluded.reserved_usd;
  END IF;

  IF is_changed THEN
    FOR changed IN
      SELECT run.project_id, array_agg(run.no ORDER BY place) AS runs
      FROM (SELECT no, status, row_number() OVER () AS place FROM unnest(batches)) AS b JOIN run ON run.no = b.no
      WHERE b.no = ANY (taken) AND run.status <> b.status
      GROUP BY run.project_id ORDER BY run.project_id
    LOOP
      first_change := new_changes(changed.project_id, cardinality(changed.runs));
      FOR i IN 1 .. cardinality(changed.runs) LOOP
        changed_runs := changed_runs || changed.runs[i];
        changes := changes || (first_change + i - 1);
      END LOOP;
    END LOOP;
  END IF;

  UPDATE run SET
    head = b.head + b.events, batch = b.batch, status = b.status, summary = b.summary,
    owner = CASE WHEN b.status IN ('pending', 'running') THEN b.owner END,
    log_bytes = run.log_bytes + b.log_bytes, open_bytes = run.open_bytes + b.open_bytes,
    started_ms = b.started_ms, live_cost_usd = b.live_cost, live_tokens = b.live_tokens,
    models = string_to_array(b.models, E'\n'), error = b.error,
    change_no = coalesce(c.change_no, run.change_no),
    ended_at = CASE WHEN is_end THEN b.ended_at ELSE run.ended_at END,
    duration_ms = CASE WHEN is_end THEN b.duration_ms ELSE run.duration_ms END,
    cost_usd = CASE WHEN is_end THEN b.cost ELSE run.cost_usd END,
    tokens = CASE WHEN is_end THEN b.tokens ELSE run.tokens END
  FROM (
    SELECT *, status = ANY (ends) AS is_end
    FROM unnest(batches) AS b
    WHERE no = ANY (taken)
  ) AS b LEFT JOIN unnest(changed_runs, changes) AS c (no, change_no) ON c.no = b.no
  WHERE run.no = b.no;

  IF cardinality(were_queued) > 0 THEN
    DELETE FROM queue WHERE run_no IN (
      SELECT no FROM unnest(batches) AS b
      WHERE no = ANY (were_queued) AND NOT (owner IS NULL AND status IN ('pending', 'running'))
    );
  END IF;
  IF is_let_go THEN
    INSERT INTO queue (run_no, project_id)
      SELECT run.no, project_id
      FROM unnest(batches) AS b JOIN run ON run.no = b.no
      WHERE b.no = ANY (taken) AND NOT b.no = ANY (were_queued)
        AND b.owner IS NULL AND b.status IN ('pending', 'running')
      ON CONFLICT DO NOTHING;
  END IF;

  IF has_end OR cardinality(dropped) > 0 THEN
    -- Checkpoints that are many or large go bit by bit, and count until they are gone.
    SELECT coalesce(array_agg(b.no), '{}') INTO large
    FROM unnest(batches) AS b JOIN run ON run.no = b.no
    WHERE b.no = ANY (taken) AND (b.head > 1000 OR run.open_bytes > 1048576);

    SELECT coalesce(array_agg(no), '{}') INTO ended
    FROM unnest(batches) AS b WHERE no = ANY (taken) AND status = ANY (ends);
  END IF;
  IF cardinality(ended) > 0 THEN
    INSERT INTO ended_run (run_no) SELECT unnest(large) INTERSECT SELECT unnest(ended) ON CONFLICT DO NOTHING;
    DELETE FROM checkpoint WHERE run_no = ANY (ended) AND NOT run_no = ANY (large);
    DELETE FROM run_request WHERE run_no = ANY (ended);
    INSERT INTO run_outcome (run_no, result, error, ended_at)
      SELECT no, result, error_result, written_at
      FROM unnest(batches) AS b WHERE no = ANY (ended)
      ON CONFLICT (run_no) DO UPDATE
        SET result = excluded.result, error = excluded.error, ended_at = excluded.ended_at;
    PERFORM count_open(no, coalesce(length(result), 0) + coalesce(length(error_result), 0))
      FROM unnest(batches) AS b
      WHERE no = ANY (ended) AND no = ANY (large);
    INSERT INTO due_outline (run_no)
      SELECT no FROM unnest(batches) AS b
      WHERE no = ANY (ended) AND head + events >= large_run_events
      ON CONFLICT DO NOTHING;
    PERFORM count_kept(ended);
  END IF;

  IF cardinality(dropped) > 0 THEN
    INSERT INTO void_checkpoint (run_no, step_id, seq)
      SELECT d.run_no, d.step_id, b.head
      FROM unnest(dropped) AS d
        JOIN unnest(batches) AS b ON b.no = d.run_no
      WHERE d.run_no = ANY (taken) AND d.run_no = ANY (large) AND NOT d.run_no = ANY (ended)
        AND EXISTS (SELECT FROM checkpoint WHERE run_no = d.run_no AND step_id = d.step_id)
      ON CONFLICT (run_no, step_id) DO UPDATE SET seq = excluded.seq;
    WITH gone AS (
      DELETE FROM checkpoint USING unnest(dropped) AS d
      WHERE checkpoint.run_no = d.run_no AND checkpoint.step_id = d.step_id
        AND d.run_no = ANY (taken) AND NOT d.run_no = ANY (large) AND NOT d.run_no = ANY (ended)
      RETURNING checkpoint.run_no, length(data) AS size
    )
    SELECT count(*) INTO first_change
      FROM (SELECT count_open(gone.run_no, -sum(size)::bigint) FROM gone GROUP BY gone.run_no) AS counted;
  END IF;
  IF cardinality(checkpoints) > 0 THEN
    INSERT INTO checkpoint (run_no, step_id, loop_path, seq, data)
      SELECT * FROM unnest(checkpoints) WHERE run_no = ANY (taken) AND NOT run_no = ANY (ended)
      ON CONFLICT (run_no, step_id, loop_path) DO UPDATE SET seq = excluded.seq, data = excluded.data;
  END IF;
END
$$;
