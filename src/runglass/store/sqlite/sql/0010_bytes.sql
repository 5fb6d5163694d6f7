-- How much of the store each run takes, and each project in all. `log_bytes` are events and steps, `open_bytes`
-- what a run that has not ended needs to go on. A project's number is the sum of those of its runs.
ALTER TABLE run ADD COLUMN log_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN open_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE project ADD COLUMN data_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE run SET
  log_bytes = coalesce((SELECT sum(length(data)) FROM event WHERE run_no = no), 0)
    + coalesce((SELECT sum(length(data)) FROM step WHERE run_no = no), 0)
    + coalesce((SELECT sum(length(data)) FROM step_attempt WHERE run_no = no), 0),
  open_bytes = coalesce((SELECT sum(length(data)) FROM checkpoint WHERE run_no = no), 0)
    + coalesce((SELECT length(request) FROM run_request WHERE run_no = no), 0);
UPDATE project SET data_bytes =
  coalesce((SELECT sum(log_bytes + open_bytes) FROM run WHERE project_id = project.id), 0);

-- Ended runs whose checkpoints are many: these go bit by bit, as one statement would hold up everybody who writes.
CREATE TABLE ended_run (
  run_no INTEGER PRIMARY KEY
) STRICT;
