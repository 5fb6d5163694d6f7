-- Budgets are whole picodollars (10^-12 US dollars): exact, and summed in the transaction that spends them.
ALTER TABLE project ADD COLUMN budget_pico INTEGER;
ALTER TABLE project ADD COLUMN spent_pico INTEGER NOT NULL DEFAULT 0;

-- What the caller of a run is owed, whatever the capture mode: its result, or the error that ended it.
ALTER TABLE run ADD COLUMN result BLOB;
ALTER TABLE run ADD COLUMN error BLOB;

-- One call under an Idempotency-Key; the answer is null until it has been given.
CREATE TABLE call (
  project_id INTEGER NOT NULL REFERENCES project (id),
  key TEXT NOT NULL,
  digest BLOB NOT NULL,
  run_id TEXT NOT NULL,
  created_at TEXT NOT NULL,
  status INTEGER,
  answer BLOB,
  PRIMARY KEY (project_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX call_by_age ON call (created_at);
