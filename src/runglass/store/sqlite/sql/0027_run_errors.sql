-- The errors of runs that failed or were cancelled, in the order of the list, in rows so narrow that a text is looked for
-- in all of a project's. Triggers take out of it what is taken out of summaries and runs.
CREATE TABLE run_error (
  project_id INTEGER NOT NULL,
  id TEXT NOT NULL,
  run_no INTEGER NOT NULL,
  flow_id TEXT NOT NULL,
  status TEXT NOT NULL,
  trigger_type TEXT NOT NULL,
  version INTEGER NOT NULL,
  error TEXT NOT NULL,
  PRIMARY KEY (project_id, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW error_of_run AS
  SELECT project_id, id, no, flow_id, status, trigger_type, version,
    lower(json_extract(told, '$.error.code') || ' ' || coalesce(json_extract(told, '$.error.message'), '')) AS error
  FROM (SELECT *, CASE WHEN json_valid(CAST(summary AS TEXT)) THEN CAST(summary AS TEXT) END AS told FROM run)
  WHERE status IN ('failed', 'cancelled') AND error IS NOT NULL;

INSERT INTO run_error SELECT * FROM error_of_run;

-- The append that ends a run and the import of one write their row themselves: a trigger of theirs would have SQLite keep
-- the pages of each such statement for an undo.
CREATE TRIGGER run_error_without_content AFTER UPDATE OF has_content ON run WHEN new.status IN ('failed', 'cancelled')
BEGIN
  DELETE FROM run_error WHERE project_id = new.project_id AND id = new.id;
  INSERT INTO run_error SELECT * FROM error_of_run WHERE no = new.no;
END;

CREATE TRIGGER run_error_gone AFTER DELETE ON run WHEN old.status IN ('failed', 'cancelled')
BEGIN
  DELETE FROM run_error WHERE project_id = old.project_id AND id = old.id;
END;
