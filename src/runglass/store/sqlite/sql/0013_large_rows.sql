-- Rows that may have megabytes get rowids. In a table that is ordered by its key SQLite reads a row as a whole to
-- compare its key: who looked for a small row beside one of 9 MB read those 9 MB. In an index are only the keys.
ALTER TABLE checkpoint RENAME TO old_checkpoint;
CREATE TABLE checkpoint (
  run_no INTEGER NOT NULL,
  step_id TEXT NOT NULL,
  loop_path TEXT NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, step_id, loop_path)
) STRICT;
INSERT INTO checkpoint SELECT run_no, step_id, loop_path, data FROM old_checkpoint;
DROP TABLE old_checkpoint;

ALTER TABLE owed RENAME TO old_owed;
CREATE TABLE owed (
  run_no INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, seq)
) STRICT;
INSERT INTO owed SELECT run_no, seq, data FROM old_owed;
DROP TABLE old_owed;

-- Version 0 is the draft, the only one that changes.
ALTER TABLE flow_version RENAME TO old_flow_version;
CREATE TABLE flow_version (
  flow_id TEXT NOT NULL REFERENCES flow (id),
  version INTEGER NOT NULL,
  source BLOB NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (flow_id, version)
) STRICT;
INSERT INTO flow_version SELECT flow_id, version, source, created_at FROM old_flow_version;
DROP TABLE old_flow_version;

-- What is kept for calls that are sent again counts from now on as what the run takes.
UPDATE run SET open_bytes = open_bytes
  + coalesce((SELECT sum(length(data)) FROM owed WHERE run_no = run.no), 0)
  + coalesce((SELECT sum(length(answer)) FROM call_answer WHERE run_no = run.no), 0)
WHERE no IN (SELECT run_no FROM owed UNION SELECT run_no FROM call_answer);
UPDATE project SET data_bytes = data_bytes
  + coalesce((SELECT sum(length(data)) FROM owed JOIN run ON run_no = no WHERE project_id = project.id), 0)
  + coalesce((SELECT sum(length(answer)) FROM call_answer WHERE project_id = project.id), 0);
