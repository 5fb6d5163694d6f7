-- Browsers that have signed in, by one hash of both halves of their session; bounded for each key and project.
CREATE TABLE viewer_session (
  digest bytea PRIMARY KEY,
  project_id bigint NOT NULL REFERENCES project (id),
  key_id bigint NOT NULL REFERENCES api_key (id),
  began_at text COLLATE "C" NOT NULL,
  used_at text COLLATE "C" NOT NULL
);

CREATE INDEX viewer_session_by_use ON viewer_session (project_id, used_at, key_id);
