-- The order in which waiting runs are claimed is decided as they come, and no claim looks at all that wait. A run's place,
-- "pick", follows the last one of its project, but does not come before the first that waits now: so a project that comes
-- anew takes turns with one that has many, and has no credit from before (start-time fair queueing).
ALTER TABLE project_change ADD COLUMN last_pick double precision NOT NULL DEFAULT 0;
ALTER TABLE project_change ADD COLUMN weight double precision NOT NULL DEFAULT 1;

ALTER TABLE queue ADD COLUMN pick double precision;
UPDATE queue SET pick = place FROM (SELECT run_no AS no, row_number() OVER (ORDER BY run_no) AS place FROM queue) AS all_waiting
WHERE no = run_no;
ALTER TABLE queue ALTER COLUMN pick SET NOT NULL;

DROP INDEX queue_by_project;
CREATE INDEX queue_by_project ON queue (project_id, pick, run_no);
CREATE INDEX queue_by_pick ON queue (pick, run_no);

-- About the last pick that was claimed: where the order goes on when nothing waits. Transactions do not wait for it.
CREATE SEQUENCE queue_clock MINVALUE 0;

-- Those that are given back come first, with pick 0. They are in nobody's order.
CREATE FUNCTION place_in_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.pick IS NULL THEN
    UPDATE project_change SET last_pick = greatest(
      last_pick + 1 / weight,
      coalesce((SELECT min(pick) FROM queue WHERE pick > 0), (SELECT last_value FROM queue_clock))
    ) WHERE project_id = NEW.project_id RETURNING last_pick INTO NEW.pick;
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER queue_places BEFORE INSERT ON queue FOR EACH ROW EXECUTE FUNCTION place_in_queue();

CREATE FUNCTION move_queue_clock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM setval('queue_clock', latest)
    FROM (SELECT ceil(max(pick))::bigint AS latest FROM gone) AS claimed
    WHERE latest > (SELECT last_value FROM queue_clock);
  RETURN NULL;
END
$$;

CREATE TRIGGER queue_moves AFTER DELETE ON queue REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION move_queue_clock();

-- How many runs of a project go on, be it in a process that is gone: none of them leaves its place before it is taken over.
CREATE INDEX run_owned_of_project ON run (project_id) WHERE owner IS NOT NULL;
