-- Who started a run, and so is owed its content; null where no key did, or before this migration.
ALTER TABLE run ADD COLUMN key_id INTEGER;

-- For counting the keys that a project may still use.
CREATE INDEX api_key_live ON api_key (project_id) WHERE revoked_at IS NULL;

-- What was changed in a project, by whom and from where. Written with the change, and never again: it outlives
-- runs, flows and keys, so it names them instead of pointing at them. Details are JSON, without content.
CREATE TABLE audit (
  no INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  project_id INTEGER NOT NULL,
  project TEXT NOT NULL,
  actor TEXT NOT NULL,
  key_id INTEGER,
  name TEXT,
  address TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  details BLOB NOT NULL
) STRICT;

CREATE INDEX audit_by_project ON audit (project_id, no);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- An INSERT OR REPLACE deletes without the trigger above.
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE no = NEW.no) BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END;
