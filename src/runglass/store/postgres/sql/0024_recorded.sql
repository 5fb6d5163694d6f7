-- Runs of other programs, by the ids of their traces: a row for each part of a trace, which is a run. The newest part has
-- what comes next. "due_at" is when to look whether a run has ended that goes on; of a run that was deleted, which has no
-- "run_no" any more, when that is forgotten. "plain_at" is when a run was due first that is plain.
CREATE TABLE recorded_trace (
  project_id bigint NOT NULL,
  trace_id text COLLATE "C" NOT NULL,
  part bigint NOT NULL,
  run_no bigint,
  due_at text COLLATE "C",
  plain_at text COLLATE "C",
  PRIMARY KEY (project_id, trace_id, part)
);

CREATE INDEX recorded_trace_of_run ON recorded_trace (run_no) WHERE run_no IS NOT NULL;
CREATE INDEX recorded_trace_due ON recorded_trace (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX recorded_trace_plain ON recorded_trace (project_id, plain_at) WHERE plain_at IS NOT NULL;

-- Whether the runs of a flow are recorded; it is not executed then.
ALTER TABLE flow ADD COLUMN recorded boolean NOT NULL DEFAULT false;

-- A recorded step of which only logs have come gets its own id when its span comes.
DO $$
BEGIN
  EXECUTE replace(
    pg_get_functiondef('append_rows'::regproc), 'SET attempt = excluded.attempt,',
    'SET step_id = excluded.step_id, loop_path = excluded.loop_path, attempt = excluded.attempt,'
  );
END
$$;

-- Creates recorded runs of one project, each as the next part of its trace, and returns them; also those that are there,
-- where this is sent again; and none for a trace that has another newest run than the one to continue. As "create_runs".
CREATE FUNCTION create_recordings(
  project bigint, new_id text[], new_flow text[], new_version bigint[], new_trigger text[], new_capture text[],
  new_session text[], new_summary bytea[], new_key bigint[], new_trace text[], new_continues text[], new_due text[]
) RETURNS SETOF run LANGUAGE plpgsql
SET jit = off
AS $$
DECLARE
  created text[];
  numbers bigint[];
  first_change bigint;
BEGIN
  WITH missing AS (
    SELECT DISTINCT ON (trace) new.*, newest.part, newest.run_id
    FROM unnest(new_id, new_trace, new_continues, new_trigger, new_due) AS new (id, trace, continues, trigger, due)
      LEFT JOIN LATERAL (
        SELECT part, (SELECT run.id FROM run WHERE run.no = run_no) AS run_id FROM recorded_trace
        WHERE project_id = project AND trace_id = new.trace ORDER BY part DESC LIMIT 1
      ) AS newest ON true
    WHERE NOT EXISTS (SELECT FROM run WHERE run.id = new.id)
  ), parts AS (
    -- In the order of traces: others, who may create the same, wait for these.
    INSERT INTO recorded_trace (project_id, trace_id, part, run_no, due_at, plain_at)
      SELECT project, trace, coalesce(part + 1, 0), new_run_no(), due, CASE WHEN trigger = 'plain' THEN due END
      FROM missing WHERE CASE WHEN part IS NULL THEN continues IS NULL ELSE run_id = continues END
      ORDER BY trace
    ON CONFLICT DO NOTHING RETURNING trace_id, run_no
  )
  SELECT array_agg(id), array_agg(run_no) INTO created, numbers FROM parts JOIN missing ON trace = trace_id;

  IF cardinality(created) > 0 THEN
    first_change := new_changes(project, cardinality(created));
    INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, session_id, summary, key_id,
        change_no)
      SELECT no, id, project, flow, version, 'pending', trigger, capture, session, summary, key, first_change + place - 1
      FROM unnest(new_id, new_flow, new_version, new_trigger, new_capture, new_session, new_summary, new_key)
          AS new (id, flow, version, trigger, capture, session, summary, key)
        JOIN unnest(created, numbers) WITH ORDINALITY AS own (id, no, place) USING (id);
  END IF;
  RETURN QUERY SELECT * FROM run WHERE id = ANY (new_id);
END
$$;
