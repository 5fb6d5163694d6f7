-- As before, and an append in which no run is begun, ended or let go, as nearly all are, does without the statements for
-- those: with few runs they take longer than what is written.
-- Writes batches of as many runs, and returns the numbers of those whose batch is written now or was before. One whose
-- head or fence is not the run's is not written, and the others are. The arrays that begin alike have a value for each
-- batch (b), event (e), latest attempt (s), earlier attempt (a), checkpoint (c), owed content (o) or step whose
-- checkpoints are void (d). Locks runs by number, then the totals and then
-- the changes of projects by id; so does whoever else locks several of them.
CREATE OR REPLACE FUNCTION append_batches(
  written_at text, large_run_events bigint,
  b_run bigint[], b_head bigint[], b_fence bigint[], b_events bigint[], b_batch bytea[],
  b_status text[], b_summary bytea[], b_owner text[], b_log_bytes bigint[], b_open_bytes bigint[],
  b_spent numeric[], b_reserved numeric[],
  b_started_ms double precision[], b_live_cost double precision[], b_live_tokens bigint[],
  b_models text[], b_error text[],
  b_ended_at text[], b_duration_ms bigint[], b_cost double precision[], b_tokens bigint[],
  b_result bytea[], b_error_result bytea[],
  e_run bigint[], e_seq bigint[], e_data bytea[],
  s_run bigint[], s_position bigint[], s_step_id text[], s_loop_path text[], s_attempt bigint[],
  s_status text[], s_data bytea[],
  a_run bigint[], a_position bigint[], a_step_id text[], a_loop_path text[], a_attempt bigint[],
  a_status text[], a_data bytea[],
  c_run bigint[], c_step_id text[], c_loop_path text[], c_seq bigint[], c_data bytea[],
  o_run bigint[], o_seq bigint[], o_data bytea[],
  d_run bigint[], d_step_id text[]
) RETURNS SETOF bigint LANGUAGE plpgsql
-- The plan that is right for a large table, also while it is small: it is made once.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
  taken bigint[];
  were_queued bigint[];
  is_changed boolean;
  ends CONSTANT text[] := '{completed,failed,cancelled}';
  ended bigint[] := '{}';
  large bigint[] := '{}';
  changed record;
  first_change bigint;
  changed_runs bigint[] := '{}';
  changes bigint[] := '{}';
BEGIN
  SELECT coalesce(array_agg(no), '{}'),
    coalesce(array_agg(no) FILTER (WHERE owner IS NULL AND status IN ('pending', 'running')), '{}'),
    bool_or(status <> next_status)
  INTO taken, were_queued, is_changed
  FROM (
    SELECT run.no, run.owner, run.status, b.status AS next_status
    FROM unnest(b_run, b_head, b_fence, b_batch, b_status) AS b (no, head, fence, batch, status)
      JOIN run ON run.no = b.no
    WHERE run.head = b.head AND run.fence = b.fence AND run.batch IS DISTINCT FROM b.batch
    ORDER BY run.no FOR NO KEY UPDATE OF run
  ) AS locked;

  RETURN QUERY SELECT unnest(taken);
  IF cardinality(taken) < cardinality(b_run) THEN
    -- Of a run that is not taken here the answer to an earlier call may have been lost.
    RETURN QUERY SELECT run.no
      FROM unnest(b_run, b_head, b_fence, b_events, b_batch) AS b (no, head, fence, events, batch)
        JOIN run ON run.no = b.no
      WHERE NOT b.no = ANY (taken)
        AND run.batch = b.batch AND run.fence = b.fence AND run.head = b.head + b.events;
  END IF;
  IF cardinality(taken) = 0 THEN
    RETURN;
  END IF;

  INSERT INTO event (run_no, seq, data)
    SELECT * FROM unnest(e_run, e_seq, e_data) AS e (run_no, seq, data) WHERE run_no = ANY (taken);
  IF cardinality(a_run) > 0 THEN
    INSERT INTO step_attempt (run_no, position, step_id, loop_path, attempt, status, data)
      SELECT * FROM unnest(a_run, a_position, a_step_id, a_loop_path, a_attempt, a_status, a_data)
        AS a (run_no, position, step_id, loop_path, attempt, status, data)
      WHERE run_no = ANY (taken)
      ON CONFLICT DO NOTHING;
  END IF;
  -- The rows of other months are not looked at where no step is tried again.
  IF 1 < ANY (s_attempt) THEN
    INSERT INTO step_attempt (run_no, position, step_id, loop_path, attempt, status, data)
      SELECT step.* FROM unnest(s_run, s_position, s_attempt) AS s (run_no, position, attempt)
        JOIN LATERAL (
          SELECT step.run_no, step.position, step.step_id, step.loop_path, step.attempt, step.status, step.data
          FROM step WHERE step.run_no = s.run_no AND step.position = s.position AND step.attempt < s.attempt
        ) AS step ON true
      WHERE s.attempt > 1 AND s.run_no = ANY (taken)
      ON CONFLICT DO NOTHING;
  END IF;
  IF cardinality(s_run) > 0 THEN
    INSERT INTO step (run_no, position, step_id, loop_path, attempt, status, data)
      SELECT * FROM unnest(s_run, s_position, s_step_id, s_loop_path, s_attempt, s_status, s_data)
        AS s (run_no, position, step_id, loop_path, attempt, status, data)
      WHERE run_no = ANY (taken)
      ON CONFLICT (run_no, position) DO UPDATE
        SET attempt = excluded.attempt, status = excluded.status, data = excluded.data;
  END IF;
  IF cardinality(o_run) > 0 THEN
    INSERT INTO owed (run_no, seq, data)
      SELECT * FROM unnest(o_run, o_seq, o_data) AS o (run_no, seq, data) WHERE run_no = ANY (taken);
  END IF;

  -- Not each append counts something of its project.
  IF b_status && ends OR cardinality(d_run) > 0
    OR 0 <> ANY (b_log_bytes) OR 0 <> ANY (b_open_bytes) OR 0 <> ANY (b_spent) OR 0 <> ANY (b_reserved) THEN
    INSERT INTO project_total (project_id, slot, data_bytes, spent_usd, reserved_usd)
      SELECT project_id, pg_backend_pid() & 15, sum(b.log_bytes + b.open_bytes), sum(b.spent), sum(b.reserved)
      FROM unnest(b_run, b_status, b_log_bytes, b_open_bytes, b_spent, b_reserved)
        AS b (no, status, log_bytes, open_bytes, spent, reserved) JOIN run ON run.no = b.no
      WHERE b.no = ANY (taken) AND (b.log_bytes <> 0 OR b.open_bytes <> 0 OR b.spent <> 0 OR b.reserved <> 0
        -- What is counted of these comes behind, and their projects are to be locked in this order all the same.
        OR b.status = ANY (ends) OR b.no = ANY (d_run))
      GROUP BY project_id ORDER BY project_id
      ON CONFLICT (project_id, slot) DO UPDATE SET
        data_bytes = project_total.data_bytes + excluded.data_bytes,
        spent_usd = project_total.spent_usd + excluded.spent_usd,
        reserved_usd = project_total.reserved_usd + excluded.reserved_usd;
  END IF;

  IF is_changed THEN
    FOR changed IN
      SELECT run.project_id, array_agg(run.no ORDER BY place) AS runs
      FROM unnest(b_run, b_status) WITH ORDINALITY AS b (no, status, place) JOIN run ON run.no = b.no
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
    FROM unnest(
      b_run, b_head, b_events, b_batch, b_status, b_summary, b_owner, b_log_bytes, b_open_bytes,
      b_started_ms, b_live_cost, b_live_tokens, b_models, b_error, b_ended_at, b_duration_ms, b_cost, b_tokens
    ) AS b (
      no, head, events, batch, status, summary, owner, log_bytes, open_bytes,
      started_ms, live_cost, live_tokens, models, error, ended_at, duration_ms, cost, tokens
    )
    WHERE no = ANY (taken)
  ) AS b LEFT JOIN unnest(changed_runs, changes) AS c (no, change_no) ON c.no = b.no
  WHERE run.no = b.no;

  IF cardinality(were_queued) > 0 THEN
    DELETE FROM queue WHERE run_no IN (
      SELECT no FROM unnest(b_run, b_status, b_owner) AS b (no, status, owner)
      WHERE no = ANY (were_queued) AND NOT (owner IS NULL AND status IN ('pending', 'running'))
    );
  END IF;
  IF array_position(b_owner, NULL) IS NOT NULL THEN
    INSERT INTO queue (run_no, project_id)
      SELECT run.no, project_id
      FROM unnest(b_run, b_status, b_owner) AS b (no, status, owner) JOIN run ON run.no = b.no
      WHERE b.no = ANY (taken) AND NOT b.no = ANY (were_queued)
        AND b.owner IS NULL AND b.status IN ('pending', 'running')
      ON CONFLICT DO NOTHING;
  END IF;

  IF b_status && ends OR cardinality(d_run) > 0 THEN
    -- Checkpoints that are many or large go bit by bit, and count until they are gone.
    SELECT coalesce(array_agg(b.no), '{}') INTO large
    FROM unnest(b_run, b_head) AS b (no, head) JOIN run ON run.no = b.no
    WHERE b.no = ANY (taken) AND (b.head > 1000 OR run.open_bytes > 1048576);

    SELECT coalesce(array_agg(no), '{}') INTO ended
    FROM unnest(b_run, b_status) AS b (no, status) WHERE no = ANY (taken) AND status = ANY (ends);
  END IF;
  IF cardinality(ended) > 0 THEN
    INSERT INTO ended_run (run_no) SELECT unnest(large) INTERSECT SELECT unnest(ended) ON CONFLICT DO NOTHING;
    DELETE FROM checkpoint WHERE run_no = ANY (ended) AND NOT run_no = ANY (large);
    DELETE FROM run_request WHERE run_no = ANY (ended);
    INSERT INTO run_outcome (run_no, result, error, ended_at)
      SELECT no, result, error, written_at
      FROM unnest(b_run, b_result, b_error_result) AS b (no, result, error) WHERE no = ANY (ended)
      ON CONFLICT (run_no) DO UPDATE
        SET result = excluded.result, error = excluded.error, ended_at = excluded.ended_at;
    PERFORM count_open(no, coalesce(length(result), 0) + coalesce(length(error), 0))
      FROM unnest(b_run, b_result, b_error_result) AS b (no, result, error)
      WHERE no = ANY (ended) AND no = ANY (large);
    INSERT INTO due_outline (run_no)
      SELECT no FROM unnest(b_run, b_head, b_events) AS b (no, head, events)
      WHERE no = ANY (ended) AND head + events >= large_run_events
      ON CONFLICT DO NOTHING;
    PERFORM count_kept(ended);
  END IF;

  IF cardinality(d_run) > 0 THEN
    INSERT INTO void_checkpoint (run_no, step_id, seq)
      SELECT d.run_no, d.step_id, b.head
      FROM unnest(d_run, d_step_id) AS d (run_no, step_id)
        JOIN unnest(b_run, b_head) AS b (no, head) ON b.no = d.run_no
      WHERE d.run_no = ANY (taken) AND d.run_no = ANY (large) AND NOT d.run_no = ANY (ended)
        AND EXISTS (SELECT FROM checkpoint WHERE run_no = d.run_no AND step_id = d.step_id)
      ON CONFLICT (run_no, step_id) DO UPDATE SET seq = excluded.seq;
    WITH gone AS (
      DELETE FROM checkpoint USING unnest(d_run, d_step_id) AS d (run_no, step_id)
      WHERE checkpoint.run_no = d.run_no AND checkpoint.step_id = d.step_id
        AND d.run_no = ANY (taken) AND NOT d.run_no = ANY (large) AND NOT d.run_no = ANY (ended)
      RETURNING checkpoint.run_no, length(data) AS size
    )
    SELECT count(*) INTO first_change
      FROM (SELECT count_open(gone.run_no, -sum(size)::bigint) FROM gone GROUP BY gone.run_no) AS counted;
  END IF;
  IF cardinality(c_run) > 0 THEN
    INSERT INTO checkpoint (run_no, step_id, loop_path, seq, data)
      SELECT * FROM unnest(c_run, c_step_id, c_loop_path, c_seq, c_data)
        AS c (run_no, step_id, loop_path, seq, data)
      WHERE run_no = ANY (taken) AND NOT run_no = ANY (ended)
      ON CONFLICT (run_no, step_id, loop_path) DO UPDATE SET seq = excluded.seq, data = excluded.data;
  END IF;
END
$$;
