-- The starts of the server that were noticed. One that was started anew may lack the newest commits: a standby has taken
-- over, or a crash has lost them.
CREATE TABLE database_start (
  started_at timestamptz PRIMARY KEY,
  noticed_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO database_start (started_at) VALUES (pg_postmaster_start_time());

-- When the server was started. Whoever notices a start first passes over numbers that may have been given and lost: a
-- run's number stands in the memory of processes, the number of a change in that of those who follow the list of runs.
CREATE FUNCTION note_start() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
  started timestamptz := pg_postmaster_start_time();
BEGIN
  IF NOT EXISTS (SELECT FROM database_start WHERE started_at = started) THEN
    INSERT INTO database_start (started_at) VALUES (started) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      PERFORM FROM project_change ORDER BY project_id FOR NO KEY UPDATE;
      UPDATE project_change SET last = last + 1000000;
      PERFORM setval('run_number', nextval('run_number') + 1000000);
    END IF;
  END IF;
  RETURN started;
END
$$;
