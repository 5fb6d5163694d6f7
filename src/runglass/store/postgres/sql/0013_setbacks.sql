-- What each run that had not ended had in the log when a start of the server was noticed. Where a process was told before that
-- there are more events, it says so in "had": those above "head" are lost, and their numbers are given twice. "head" is NULL
-- for a run that is lost as a whole. Rows that say nothing of a loss go with the next start.
CREATE TABLE run_setback (
  run_id text COLLATE "C" NOT NULL,
  started_at timestamptz NOT NULL,
  noticed_at timestamptz NOT NULL DEFAULT now(),
  project_id bigint NOT NULL,
  head bigint,
  had bigint,
  PRIMARY KEY (run_id, started_at)
);

-- As before; and whoever notices a start first writes down what runs have then, before anybody appends to them.
CREATE OR REPLACE FUNCTION note_start() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
  started timestamptz := pg_postmaster_start_time();
BEGIN
  IF NOT EXISTS (SELECT FROM database_start WHERE started_at = started) THEN
    INSERT INTO database_start (started_at) VALUES (started) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      PERFORM FROM project_change ORDER BY project_id FOR NO KEY UPDATE;
      UPDATE project_change SET last = last + 1000000;
      PERFORM setval('run_number', nextval('run_number') + 1000000);
      DELETE FROM run_setback WHERE had IS NULL OR noticed_at < now() - interval '30 days';
      INSERT INTO run_setback (run_id, started_at, project_id, head)
        SELECT id, started, project_id, head FROM run WHERE no IN (
          SELECT no FROM run WHERE owner IS NOT NULL UNION ALL SELECT run_no FROM queue
          UNION ALL SELECT no FROM run WHERE status = 'paused'
        ) ON CONFLICT DO NOTHING;
    END IF;
  END IF;
  RETURN started;
END
$$;
