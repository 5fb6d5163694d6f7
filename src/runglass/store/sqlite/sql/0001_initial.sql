CREATE TABLE project (
  id INTEGER PRIMARY KEY,
  org TEXT NOT NULL,
  name TEXT NOT NULL,
  capture TEXT,
  UNIQUE (org, name)
) STRICT;

CREATE TABLE api_key (
  id INTEGER PRIMARY KEY,
  project_id INTEGER NOT NULL REFERENCES project (id),
  role TEXT NOT NULL CHECK (role IN ('admin', 'run', 'read')),
  digest BLOB NOT NULL UNIQUE,
  hint TEXT NOT NULL,
  created_at TEXT NOT NULL,
  revoked_at TEXT
) STRICT;

CREATE TABLE flow (
  id TEXT PRIMARY KEY,
  project_id INTEGER NOT NULL REFERENCES project (id),
  slug TEXT NOT NULL,
  name TEXT,
  capture TEXT,
  production_version INTEGER,
  updated_at TEXT NOT NULL,
  UNIQUE (project_id, slug)
) STRICT;

-- Version 0 is the draft, the only one that changes.
CREATE TABLE flow_version (
  flow_id TEXT NOT NULL REFERENCES flow (id),
  version INTEGER NOT NULL,
  source BLOB NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (flow_id, version)
) STRICT, WITHOUT ROWID;

-- "no" is the run's short name inside the store; ids are time-ordered, so the indexes serve "newest first".
CREATE TABLE run (
  no INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  project_id INTEGER NOT NULL REFERENCES project (id),
  flow_id TEXT NOT NULL REFERENCES flow (id),
  version INTEGER NOT NULL,
  status TEXT NOT NULL,
  trigger_type TEXT NOT NULL,
  capture TEXT NOT NULL,
  session_id TEXT,
  head INTEGER NOT NULL DEFAULT 0,
  fence INTEGER NOT NULL DEFAULT 1,
  summary BLOB NOT NULL,
  request BLOB
) STRICT;

CREATE INDEX run_by_project ON run (project_id, id);
CREATE INDEX run_by_flow ON run (flow_id, id);
CREATE INDEX run_by_status ON run (project_id, status, id);
CREATE INDEX run_by_session ON run (session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX run_unfinished ON run (no) WHERE status IN ('pending', 'running');

CREATE TABLE event (
  run_no INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, seq)
) STRICT, WITHOUT ROWID;

-- The latest attempt of each step and iteration, in order of first start; earlier ones move to step_attempt.
CREATE TABLE step (
  run_no INTEGER NOT NULL,
  position INTEGER NOT NULL,
  step_id TEXT NOT NULL,
  loop_path TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  status TEXT NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX step_by_id ON step (run_no, step_id);

CREATE TABLE step_attempt (
  run_no INTEGER NOT NULL,
  position INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  step_id TEXT NOT NULL,
  loop_path TEXT NOT NULL,
  status TEXT NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, position, attempt)
) STRICT, WITHOUT ROWID;

CREATE INDEX step_attempt_by_id ON step_attempt (run_no, step_id);

CREATE TABLE checkpoint (
  run_no INTEGER NOT NULL,
  step_id TEXT NOT NULL,
  loop_path TEXT NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, step_id, loop_path)
) STRICT, WITHOUT ROWID;
