-- Every append rewrites the run's row as a whole, so what may be large has rows of its own: what was asked,
-- until the run has ended, and what is owed to the caller, from then on.
CREATE TABLE run_request (
  run_no INTEGER PRIMARY KEY,
  request BLOB NOT NULL
) STRICT;

CREATE TABLE run_outcome (
  run_no INTEGER PRIMARY KEY,
  result BLOB,
  error BLOB
) STRICT;

INSERT INTO run_request (run_no, request) SELECT no, request FROM run WHERE request IS NOT NULL;
INSERT INTO run_outcome (run_no, result, error)
  SELECT no, result, error FROM run WHERE result IS NOT NULL OR error IS NOT NULL;

ALTER TABLE run DROP COLUMN request;
ALTER TABLE run DROP COLUMN result;
ALTER TABLE run DROP COLUMN error;

-- Lists of runs always name the project, and without it in front the planner would scan all of its runs.
DROP INDEX run_by_flow;
CREATE INDEX run_by_flow ON run (project_id, flow_id, id);
CREATE INDEX run_by_flow_status ON run (project_id, flow_id, status, id);

-- For the search for runs that have been paused for too long.
CREATE INDEX run_paused ON run (no) WHERE status = 'paused';
