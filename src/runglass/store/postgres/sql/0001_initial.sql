-- Texts are compared byte by byte, whatever the language of the database: ids, slugs and ISO times are in their order.

CREATE TABLE project (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  capture text COLLATE "C",
  budget_usd text COLLATE "C",
  retention_days double precision,
  content_retention_days double precision,
  allowed_models text COLLATE "C",
  UNIQUE (org, name)
);

-- What the runs of a project add up to. Each connection adds to one of a few rows, so that appends of many processes
-- do not wait for each other; the sum of the rows is the project's.
CREATE TABLE project_total (
  project_id bigint NOT NULL REFERENCES project (id),
  slot integer NOT NULL,
  data_bytes bigint NOT NULL DEFAULT 0,
  spent_usd numeric NOT NULL DEFAULT 0,
  reserved_usd numeric NOT NULL DEFAULT 0,
  PRIMARY KEY (project_id, slot)
) WITH (fillfactor = 50);

-- The number of the newest change of a project's runs. Whoever takes a number holds the row until the commit: so
-- numbers are seen in their order, and no reader passes one by.
CREATE TABLE project_change (
  project_id bigint PRIMARY KEY REFERENCES project (id),
  last bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE api_key (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id bigint NOT NULL REFERENCES project (id),
  role text COLLATE "C" NOT NULL CHECK (role IN ('admin', 'run', 'read')),
  digest bytea NOT NULL UNIQUE,
  hint text COLLATE "C" NOT NULL,
  created_at text COLLATE "C" NOT NULL,
  revoked_at text COLLATE "C"
);

CREATE INDEX api_key_by_project ON api_key (project_id, id);

CREATE TABLE flow (
  id text COLLATE "C" PRIMARY KEY,
  project_id bigint NOT NULL REFERENCES project (id),
  slug text COLLATE "C" NOT NULL,
  name text COLLATE "C",
  capture text COLLATE "C",
  production_version bigint,
  updated_at text COLLATE "C" NOT NULL,
  retention_days double precision,
  content_retention_days double precision,
  UNIQUE (project_id, slug)
);

-- Version 0 is the draft, the only one that changes.
CREATE TABLE flow_version (
  flow_id text COLLATE "C" NOT NULL REFERENCES flow (id),
  version bigint NOT NULL,
  source bytea NOT NULL,
  created_at text COLLATE "C" NOT NULL,
  PRIMARY KEY (flow_id, version)
);

-- "no" is the run's short name inside the store. Its high bits are the month in which the run was created, so that the
-- rows of a run are all in the partitions of that month; the low 40 bits count, and no number is given twice.
CREATE SEQUENCE run_number;

-- Months count from January 2020.
CREATE FUNCTION month_of(at timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT (extract(year FROM at AT TIME ZONE 'UTC')::bigint - 2020) * 12
    + extract(month FROM at AT TIME ZONE 'UTC')::bigint - 1
$$;

CREATE FUNCTION new_run_no() RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT (month_of(now()) << 40) + nextval('run_number')
$$;

-- Most appends change no column that an index has: the new row then goes beside the old one, and no index is written.
-- What is found of a run that goes on ("started_ms" to "error") is in none. The numbers behind are set as it ends.
-- Only a run that is pending or running has an owner.
-- "batch" is the id of the newest append: who lost its answer sends it again, and is told that it was written.
CREATE TABLE run (
  no bigint PRIMARY KEY,
  id text COLLATE "C" NOT NULL UNIQUE,
  project_id bigint NOT NULL,
  flow_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  status text COLLATE "C" NOT NULL,
  trigger_type text COLLATE "C" NOT NULL,
  capture text COLLATE "C" NOT NULL,
  session_id text COLLATE "C",
  key_id bigint,
  head bigint NOT NULL DEFAULT 0,
  fence bigint NOT NULL DEFAULT 1,
  owner text COLLATE "C",
  claims bigint NOT NULL DEFAULT 0,
  claimed_head bigint NOT NULL DEFAULT -1,
  batch bytea,
  log_bytes bigint NOT NULL DEFAULT 0,
  open_bytes bigint NOT NULL DEFAULT 0,
  started_ms double precision,
  live_cost_usd double precision,
  live_tokens bigint,
  models text[] COLLATE "C",
  error text COLLATE "C",
  change_no bigint NOT NULL,
  ended_at text COLLATE "C",
  has_content boolean NOT NULL DEFAULT true,
  duration_ms bigint,
  cost_usd double precision,
  tokens bigint,
  summary bytea NOT NULL
) WITH (fillfactor = 70);

-- Ids are in the order of time, so these serve "newest first". Each begins with the project: nobody's runs are gone
-- through for another. Runs that have four columns in common are found as a group, whichever of them a query names.
CREATE INDEX run_by_project ON run (project_id, id) INCLUDE (duration_ms, cost_usd, tokens);
CREATE INDEX run_by_flow ON run (project_id, flow_id, id);
CREATE INDEX run_by_status ON run (project_id, status, id);
CREATE INDEX run_by_group ON run (project_id, flow_id, status, trigger_type, version, id);
CREATE INDEX run_by_session ON run (project_id, session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX run_by_change ON run (project_id, change_no);
CREATE INDEX run_by_owner ON run (owner, no) WHERE owner IS NOT NULL;
CREATE INDEX run_paused ON run (no) WHERE status = 'paused';
CREATE INDEX run_ended ON run (flow_id, ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX run_with_content ON run (flow_id, ended_at) WHERE ended_at IS NOT NULL AND has_content;

-- Runs that can go on and that nobody has. A row leaves when its run is claimed, ends or pauses.
CREATE TABLE queue (
  run_no bigint PRIMARY KEY,
  project_id bigint NOT NULL
);

CREATE INDEX queue_by_project ON queue (project_id, run_no);

-- A process holds a lease and owns its runs under it. When the lease has run out, others may claim them; each claim
-- raises the run's fence, so that whoever had it before can append nothing more.
CREATE TABLE lease (
  owner text COLLATE "C" PRIMARY KEY,
  expires_at text COLLATE "C" NOT NULL
) WITH (fillfactor = 50);

-- What was asked, until the run has ended, and what is owed to the caller, from then on.
CREATE TABLE run_request (
  run_no bigint PRIMARY KEY,
  request bytea NOT NULL
);

CREATE TABLE run_outcome (
  run_no bigint PRIMARY KEY,
  result bytea,
  error bytea,
  ended_at text COLLATE "C" NOT NULL
);

CREATE INDEX run_outcome_by_age ON run_outcome (ended_at);

CREATE TABLE event (
  run_no bigint NOT NULL,
  seq bigint NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (run_no, seq)
) PARTITION BY RANGE (run_no);

-- The latest attempt of each step and iteration, in order of first start; earlier ones are in step_attempt.
CREATE TABLE step (
  run_no bigint NOT NULL,
  position bigint NOT NULL,
  step_id text COLLATE "C" NOT NULL,
  loop_path text COLLATE "C" NOT NULL,
  attempt bigint NOT NULL,
  status text COLLATE "C" NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (run_no, position)
) PARTITION BY RANGE (run_no);

CREATE INDEX step_by_id ON step (run_no, step_id);

CREATE TABLE step_attempt (
  run_no bigint NOT NULL,
  position bigint NOT NULL,
  attempt bigint NOT NULL,
  step_id text COLLATE "C" NOT NULL,
  loop_path text COLLATE "C" NOT NULL,
  status text COLLATE "C" NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (run_no, position, attempt)
) PARTITION BY RANGE (run_no);

CREATE INDEX step_attempt_by_id ON step_attempt (run_no, step_id);

-- The outlines of large runs that have ended, packed, in parts. The last one that is written is part 0.
CREATE TABLE kept_outline (
  run_no bigint NOT NULL,
  part bigint NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (run_no, part)
);

-- The large runs that have ended and whose outlines are still to be kept.
CREATE TABLE due_outline (
  run_no bigint PRIMARY KEY
);

-- "seq" is that of the append which wrote a checkpoint: void are those up to the given one.
CREATE TABLE checkpoint (
  run_no bigint NOT NULL,
  step_id text COLLATE "C" NOT NULL,
  loop_path text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (run_no, step_id, loop_path)
);

CREATE TABLE void_checkpoint (
  run_no bigint NOT NULL,
  step_id text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  PRIMARY KEY (run_no, step_id)
);

-- One call under an Idempotency-Key; its answer begins behind "head" of its run.
CREATE TABLE call (
  project_id bigint NOT NULL REFERENCES project (id),
  key text COLLATE "C" NOT NULL,
  digest bytea NOT NULL,
  run_id text COLLATE "C" NOT NULL,
  head bigint NOT NULL,
  created_at text COLLATE "C" NOT NULL,
  status bigint,
  PRIMARY KEY (project_id, key)
);

CREATE INDEX call_by_age ON call (created_at);
CREATE INDEX call_by_run ON call (run_id);

CREATE TABLE call_answer (
  no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id bigint NOT NULL,
  key text COLLATE "C" NOT NULL,
  run_no bigint NOT NULL,
  answered_at text COLLATE "C" NOT NULL,
  answer bytea NOT NULL,
  UNIQUE (project_id, key)
);

CREATE INDEX call_answer_by_run ON call_answer (run_no, no);
CREATE INDEX call_answer_by_age ON call_answer (answered_at);

-- Content of events for a call that is sent again, whatever the log keeps.
CREATE TABLE owed (
  run_no bigint NOT NULL,
  seq bigint NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (run_no, seq)
);

-- Runs without a row in "run" whose other rows go bit by bit; ended runs whose checkpoints do; and runs that are being
-- imported, whose row in "run" comes last.
CREATE TABLE purged_run (
  run_no bigint PRIMARY KEY
);

CREATE TABLE ended_run (
  run_no bigint PRIMARY KEY
);

CREATE TABLE importing_run (
  run_no bigint PRIMARY KEY
);

-- What was changed in a project, by whom and from where. It outlives runs, flows and keys, so it names them instead of
-- pointing at them.
CREATE TABLE audit (
  no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at text COLLATE "C" NOT NULL,
  project_id bigint NOT NULL,
  project text COLLATE "C" NOT NULL,
  actor text COLLATE "C" NOT NULL,
  key_id bigint,
  name text COLLATE "C",
  address text COLLATE "C" NOT NULL,
  action text COLLATE "C" NOT NULL,
  subject text COLLATE "C" NOT NULL,
  details bytea NOT NULL
);

CREATE INDEX audit_by_project ON audit (project_id, no);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only';
END
$$;

CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Written and taken away again by whoever asks whether the database takes writes at all.
CREATE TABLE write_check (
  data text NOT NULL
);

-- Written in the transaction of a change: whoever loses the answer to its COMMIT asks here whether it was one. Asking
-- writes a mark that says no, where there is none: a transaction that is still under way cannot commit any more then.
CREATE TABLE commit_mark (
  id uuid PRIMARY KEY,
  is_committed boolean NOT NULL,
  made_at timestamptz NOT NULL DEFAULT now()
);
