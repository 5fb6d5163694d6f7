-- When the server was started. Where a process of it dies, PostgreSQL ends all others and recovers without being started
-- anew: the counters of its statistics begin anew then. Else it keeps them, also over a stop that is told.
CREATE FUNCTION server_started_at() RETURNS timestamptz LANGUAGE sql AS $$
  SELECT greatest(pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time())
$$;

INSERT INTO database_start (started_at) VALUES (server_started_at()) ON CONFLICT DO NOTHING;

-- As before, with that.
CREATE OR REPLACE FUNCTION note_start() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
  started timestamptz := server_started_at();
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

-- As before; a role that does not own the tables drops none, and the rows go one by one.
CREATE OR REPLACE FUNCTION drop_month_of(run_no bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  month bigint := run_no >> 40;
  parent text;
BEGIN
  IF month >= month_of(now() - interval '1 day')
    OR EXISTS (SELECT FROM run WHERE no >= month << 40 AND no < (month + 1) << 40)
    OR EXISTS (SELECT FROM importing_run AS i WHERE i.run_no >= month << 40 AND i.run_no < (month + 1) << 40)
  THEN
    RETURN false;
  END IF;
  -- Everybody who reads or appends waits for as long as this does.
  SET LOCAL lock_timeout = '100ms';
  FOREACH parent IN ARRAY ARRAY['event', 'step', 'step_attempt'] LOOP
    EXECUTE format('DROP TABLE IF EXISTS %I',
      format('%s_%s_%s', parent, 2020 + month / 12, lpad((month % 12 + 1)::text, 2, '0')));
  END LOOP;
  RETURN true;
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
  RETURN false;
END
$$;
