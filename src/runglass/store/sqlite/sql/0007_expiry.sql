-- What a caller is owed is kept for a while after the run's end, or after the answer to a call; both are found
-- by age. What was kept before this migration counts from now.
ALTER TABLE run_outcome ADD COLUMN ended_at TEXT NOT NULL DEFAULT '';
UPDATE run_outcome SET ended_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now');
CREATE INDEX run_outcome_by_age ON run_outcome (ended_at);

-- Answers have a table of their own, to which rows are only added at the end: among the keys of calls, which
-- come in no order, SQLite moves rows from page to page and leaves copies that deleting them does not reach.
CREATE TABLE call_answer (
  no INTEGER PRIMARY KEY,
  project_id INTEGER NOT NULL,
  key TEXT NOT NULL,
  run_no INTEGER NOT NULL,
  answered_at TEXT NOT NULL,
  answer BLOB NOT NULL,
  UNIQUE (project_id, key)
) STRICT;

CREATE INDEX call_answer_by_run ON call_answer (run_no);
CREATE INDEX call_answer_by_age ON call_answer (answered_at);

INSERT INTO call_answer (project_id, key, run_no, answered_at, answer)
  SELECT call.project_id, key, no, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), answer
  FROM call JOIN run ON run.id = run_id WHERE answer IS NOT NULL;

ALTER TABLE call DROP COLUMN answer;
