-- Runs of other programs, by the ids of their traces: a row for each part of a trace, which is a run. The newest part has
-- what comes next. "due_at" is when to look whether a run has ended that goes on; of a run that was deleted, which has no
-- "run_no" any more, when that is forgotten. "plain_at" is when a run was due first that is plain.
CREATE TABLE recorded_trace (
  project_id INTEGER NOT NULL,
  trace_id TEXT NOT NULL,
  part INTEGER NOT NULL,
  run_no INTEGER,
  due_at TEXT,
  plain_at TEXT,
  PRIMARY KEY (project_id, trace_id, part)
) STRICT, WITHOUT ROWID;

CREATE INDEX recorded_trace_of_run ON recorded_trace (run_no) WHERE run_no IS NOT NULL;
CREATE INDEX recorded_trace_due ON recorded_trace (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX recorded_trace_plain ON recorded_trace (project_id, plain_at) WHERE plain_at IS NOT NULL;

-- Whether the runs of a flow are recorded; it is not executed then.
ALTER TABLE flow ADD COLUMN recorded INTEGER NOT NULL DEFAULT 0;
