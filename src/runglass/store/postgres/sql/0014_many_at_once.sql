-- PostgreSQL before 18 reckons a scan that is switched off as so dear that it compiles the statement first, for longer than
-- any of these takes.
ALTER FUNCTION append_batches SET jit = off;

-- As before, with one statement for all runs and one row for each project.
CREATE OR REPLACE FUNCTION count_kept(runs bigint[]) RETURNS void LANGUAGE sql AS $$
  WITH kept AS (
    SELECT no, open_bytes,
      coalesce((SELECT sum(length(data)) FROM owed WHERE run_no = run.no), 0)
      + coalesce((SELECT sum(length(answer)) FROM call_answer WHERE run_no = run.no), 0)
      + coalesce((SELECT coalesce(length(result), 0) + coalesce(length(error), 0)
        FROM run_outcome WHERE run_no = run.no), 0) AS size
    FROM run
    WHERE no = ANY (runs) AND NOT EXISTS (SELECT FROM ended_run WHERE run_no = run.no)
  ), counted AS (
    UPDATE run SET open_bytes = run.open_bytes + kept.size - kept.open_bytes
    FROM kept WHERE run.no = kept.no AND kept.size <> kept.open_bytes
    RETURNING project_id, kept.size - kept.open_bytes AS growth
  )
  INSERT INTO project_total (project_id, slot, data_bytes)
    SELECT project_id, pg_backend_pid() & 15, sum(growth) FROM counted GROUP BY project_id ORDER BY project_id
  ON CONFLICT (project_id, slot) DO UPDATE SET data_bytes = project_total.data_bytes + excluded.data_bytes
$$;

-- Creates pending runs of one project, each with its request and its call, and returns them; also those that are there,
-- where this is sent again; and none for a call under which another run was begun. The rows of the project are changed
-- once: in one transaction, each further change would go through all versions before it.
CREATE FUNCTION create_runs(
  written_at text, project bigint, new_id text[], new_flow text[], new_version bigint[], new_trigger text[],
  new_capture text[], new_session text[], new_request bytea[], new_summary bytea[], new_owner text[], new_key bigint[],
  call_key text[], call_digest bytea[]
) RETURNS SETOF run LANGUAGE plpgsql
SET jit = off
AS $$
DECLARE
  created text[];
  numbers bigint[];
  waiting bigint;
  first_change bigint;
  first_pick double precision;
  share double precision;
BEGIN
  -- Of those whose call is there, the same, sent before and slower, may have committed meanwhile.
  WITH missing AS (
    SELECT * FROM unnest(new_id, call_key, call_digest) WITH ORDINALITY AS new (id, key, digest, place)
    WHERE NOT EXISTS (SELECT FROM run WHERE run.id = new.id)
  ), called AS (
    INSERT INTO call (project_id, key, digest, run_id, head, created_at)
      SELECT project, key, digest, id, 0, written_at FROM missing WHERE key IS NOT NULL ORDER BY key
    ON CONFLICT DO NOTHING RETURNING run_id
  )
  SELECT coalesce(array_agg(id), '{}'), coalesce(array_agg(no), '{}') INTO created, numbers
  FROM (
    SELECT id, new_run_no() AS no
    FROM (SELECT id FROM missing WHERE key IS NULL OR id IN (SELECT run_id FROM called) ORDER BY place) AS ordered
  ) AS numbered;

  IF cardinality(created) > 0 THEN
    INSERT INTO run_request (run_no, request)
      SELECT no, request FROM unnest(new_id, new_request) AS new (id, request)
        JOIN unnest(created, numbers) AS own (id, no) USING (id);
    PERFORM count_bytes(project, sum(length(request))::bigint)
      FROM unnest(new_id, new_request) AS new (id, request) WHERE id = ANY (created);
    first_change := new_changes(project, cardinality(created));
    INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, session_id, summary, owner,
        key_id, open_bytes, change_no)
      SELECT no, id, project, flow, version, 'pending', trigger, capture, session, summary, owner, key, length(request),
        first_change + place - 1
      FROM unnest(new_id, new_flow, new_version, new_trigger, new_capture, new_session, new_request, new_summary,
          new_owner, new_key)
          AS new (id, flow, version, trigger, capture, session, request, summary, owner, key)
        JOIN unnest(created, numbers) WITH ORDINALITY AS own (id, no, place) USING (id)
      ON CONFLICT (id) DO NOTHING;
    GET DIAGNOSTICS waiting = ROW_COUNT;
    IF waiting < cardinality(created) THEN
      RAISE serialization_failure USING MESSAGE = 'a run was created meanwhile';
    END IF;
    SELECT count(*) INTO waiting FROM unnest(new_id, new_owner) AS new (id, owner) WHERE id = ANY (created) AND owner IS NULL;
    IF waiting > 0 THEN
      -- Each behind the one before it, as where they come one by one.
      UPDATE project_change SET last_pick = (waiting - 1) / weight + greatest(
        last_pick + 1 / weight,
        coalesce((SELECT min(pick) FROM queue WHERE pick > 0), (SELECT last_value FROM queue_clock))
      ) WHERE project_id = project RETURNING last_pick - (waiting - 1) / weight, 1 / weight INTO first_pick, share;
      INSERT INTO queue (run_no, project_id, pick)
        SELECT no, project, first_pick + (row_number() OVER (ORDER BY place) - 1) * share
        FROM unnest(new_id, new_owner) AS new (id, owner)
          JOIN unnest(created, numbers) WITH ORDINALITY AS own (id, no, place) USING (id)
        WHERE owner IS NULL;
    END IF;
  END IF;
  RETURN QUERY SELECT * FROM run WHERE id = ANY (new_id);
END
$$;
