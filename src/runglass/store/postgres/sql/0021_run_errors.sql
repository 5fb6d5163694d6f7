-- The errors of runs that failed or were cancelled, in the order of the list, in rows so narrow that a text is looked for
-- in all of a project's. A trigger keeps it as the runs are: what is taken out of these is nowhere here, whichever
-- program did it. Of runs from before it has those with the next migration.
CREATE TABLE run_error (
  project_id bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  run_no bigint NOT NULL,
  flow_id text COLLATE "C" NOT NULL,
  status text COLLATE "C" NOT NULL,
  trigger_type text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  error text COLLATE "C" NOT NULL,
  PRIMARY KEY (project_id, id)
);

CREATE FUNCTION keep_run_error() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR NEW.error IS NULL THEN
    DELETE FROM run_error WHERE project_id = OLD.project_id AND id = OLD.id;
  ELSE
    INSERT INTO run_error (project_id, id, run_no, flow_id, status, trigger_type, version, error)
      VALUES (NEW.project_id, NEW.id, NEW.no, NEW.flow_id, NEW.status, NEW.trigger_type, NEW.version, NEW.error)
      ON CONFLICT (project_id, id) DO UPDATE SET status = excluded.status, error = excluded.error;
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER run_error_with_run AFTER INSERT ON run FOR EACH ROW
  WHEN (NEW.error IS NOT NULL) EXECUTE FUNCTION keep_run_error();
CREATE TRIGGER run_error_changed AFTER UPDATE OF error, status ON run FOR EACH ROW
  WHEN (OLD.error IS DISTINCT FROM NEW.error OR NEW.error IS NOT NULL AND OLD.status <> NEW.status)
  EXECUTE FUNCTION keep_run_error();
CREATE TRIGGER run_error_gone AFTER DELETE ON run FOR EACH ROW
  WHEN (OLD.error IS NOT NULL) EXECUTE FUNCTION keep_run_error();
