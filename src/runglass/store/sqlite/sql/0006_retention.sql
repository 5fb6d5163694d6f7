-- How long ended runs, and what they hold of content, are kept: the flow's word, else the project's, else the
-- server's. Days; null leaves it to the next one.
ALTER TABLE project ADD COLUMN retention_days REAL;
ALTER TABLE project ADD COLUMN content_retention_days REAL;
ALTER TABLE flow ADD COLUMN retention_days REAL;
ALTER TABLE flow ADD COLUMN content_retention_days REAL;

-- What is due is found by these two indexes; a run enters them with the append that ends it.
ALTER TABLE run ADD COLUMN ended_at TEXT;
ALTER TABLE run ADD COLUMN has_content INTEGER NOT NULL DEFAULT 1;
UPDATE run SET ended_at = json_extract(CAST(summary AS TEXT), '$.completedAt')
  WHERE status IN ('completed', 'failed', 'cancelled') AND json_valid(CAST(summary AS TEXT));
CREATE INDEX run_ended ON run (flow_id, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX run_with_content ON run (flow_id, ended_at) WHERE ended_at IS NOT NULL AND has_content = 1;

-- A purged run has no row any more, so nobody finds it; what it has in other tables goes bit by bit.
CREATE TABLE purged_run (
  run_no INTEGER PRIMARY KEY
) STRICT;

-- The highest number of a purged run: no number is given twice, or a reader could go on in another's log.
CREATE TABLE run_number (
  last INTEGER NOT NULL
) STRICT;

INSERT INTO run_number (last) VALUES (0);

CREATE INDEX call_by_run ON call (run_id);
