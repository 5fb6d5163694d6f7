-- What a run adds up to, for finding it by that: set when it ends, as until then its summary says it.
ALTER TABLE run ADD COLUMN duration_ms INTEGER;
ALTER TABLE run ADD COLUMN cost_usd REAL;
ALTER TABLE run ADD COLUMN tokens INTEGER;

-- The runs of a project that were created, or whose status has changed, in the order in which that was. A run has the
-- number of its newest change; 0 is before this migration.
ALTER TABLE project ADD COLUMN run_changes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN change_no INTEGER NOT NULL DEFAULT 0;

DROP INDEX run_by_project;
DROP INDEX run_by_flow_status;
DROP INDEX run_job;
DROP INDEX run_job_by_status;

UPDATE run SET (duration_ms, cost_usd, tokens) = (
    SELECT json_extract(told, '$.durationMs'), CAST(json_extract(told, '$.totals.costUsd') AS REAL),
      json_extract(told, '$.totals.tokens.total')
    FROM (SELECT CAST(summary AS TEXT) AS told))
  WHERE ended_at IS NOT NULL AND json_valid(CAST(summary AS TEXT));

-- A list by what runs add up to reads this index alone, a hundred thousand runs in some milliseconds.
CREATE INDEX run_by_project ON run (project_id, id, duration_ms, cost_usd, tokens);
-- Runs that have these four in common are found as a group, whichever of the four a query names.
CREATE INDEX run_by_group ON run (project_id, flow_id, status, trigger_type, version, id);
CREATE INDEX run_by_change ON run (project_id, change_no) WHERE change_no > 0;
