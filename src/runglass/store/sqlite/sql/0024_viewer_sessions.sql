-- Browsers that have signed in, by one hash of both halves of their session; bounded for each key and project.
CREATE TABLE viewer_session (
  digest BLOB PRIMARY KEY,
  project_id INTEGER NOT NULL REFERENCES project (id),
  key_id INTEGER NOT NULL REFERENCES api_key (id),
  began_at TEXT NOT NULL,
  used_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX viewer_session_by_use ON viewer_session (project_id, used_at, key_id);
