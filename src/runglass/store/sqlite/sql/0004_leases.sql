-- A process holds a lease and owns its runs under it. When the lease has run out, others may claim them; each
-- claim raises the run's fence, so that whoever had it before can append nothing more.
CREATE TABLE lease (
  owner TEXT PRIMARY KEY,
  expires_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE run ADD COLUMN owner TEXT;

-- How often the run was claimed at this head: one that takes down every process must not do so for ever.
ALTER TABLE run ADD COLUMN claims INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN claimed_head INTEGER NOT NULL DEFAULT -1;

-- What the run adds up to so far, as JSON; for whoever goes on with it.
ALTER TABLE run ADD COLUMN totals BLOB;

-- Where in the run's log the answer to a call begins.
ALTER TABLE call ADD COLUMN head INTEGER NOT NULL DEFAULT 0;

-- Content of events for a call that is sent again, whatever the log keeps; dropped with the call.
CREATE TABLE owed (
  run_no INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, seq)
) STRICT, WITHOUT ROWID;
