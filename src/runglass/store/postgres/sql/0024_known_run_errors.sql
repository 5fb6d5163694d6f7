-- The errors of runs from before the migration of `run_error`. By itself, as that one keeps writers from `run` until its
-- commit. Runs are locked against a purge alone: its trigger would not find what is not yet committed here.
INSERT INTO run_error (project_id, id, run_no, flow_id, status, trigger_type, version, error)
  SELECT project_id, id, no, flow_id, status, trigger_type, version, error FROM run WHERE error IS NOT NULL
  FOR KEY SHARE
ON CONFLICT DO NOTHING;

-- Until it is analyzed, rows are sorted that are in order.
ANALYZE run_error;
