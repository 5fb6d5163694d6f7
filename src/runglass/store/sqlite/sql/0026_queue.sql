-- Runs that nobody has and that can go on, in the order in which they are claimed: as on PostgreSQL. A run's place, "pick",
-- follows the last one of its project, but does not come before the first that waits now (start-time fair queueing). Those
-- that are given back come first, with pick 0.
CREATE TABLE queue (
  run_no INTEGER PRIMARY KEY,
  project_id INTEGER NOT NULL,
  pick REAL
) STRICT;

-- The last place that was claimed: where the order goes on when nothing waits.
CREATE TABLE queue_clock (last REAL NOT NULL) STRICT;
INSERT INTO queue_clock VALUES (0);

ALTER TABLE project ADD COLUMN last_pick REAL NOT NULL DEFAULT 0;
ALTER TABLE project ADD COLUMN weight REAL NOT NULL DEFAULT 1;

-- Those that wait already take turns between their projects.
INSERT INTO queue (run_no, project_id, pick)
  SELECT no, project_id, row_number() OVER (PARTITION BY project_id ORDER BY no) FROM run
  WHERE owner IS NULL AND (status IN ('pending', 'running') OR status = 'paused' AND resume_head = head);
UPDATE project SET last_pick = coalesce((SELECT max(pick) FROM queue WHERE project_id = project.id), 0);

CREATE INDEX queue_by_pick ON queue (pick);
CREATE INDEX queue_by_project ON queue (project_id, pick);

CREATE TRIGGER queue_places AFTER INSERT ON queue WHEN NEW.pick IS NULL BEGIN
  UPDATE project SET last_pick = max(
    last_pick + 1 / weight,
    coalesce((SELECT min(pick) FROM queue WHERE pick > 0), (SELECT last FROM queue_clock))
  ) WHERE id = NEW.project_id;
  UPDATE queue SET pick = (SELECT last_pick FROM project WHERE id = NEW.project_id) WHERE run_no = NEW.run_no;
END;

CREATE TRIGGER queue_moves AFTER DELETE ON queue WHEN OLD.pick > (SELECT last FROM queue_clock) BEGIN
  UPDATE queue_clock SET last = OLD.pick;
END;

-- What can go on is found in the queue, or by its owner.
DROP INDEX run_unfinished;
DROP INDEX run_resumed;
CREATE INDEX run_by_owner ON run (owner, project_id) WHERE owner IS NOT NULL;
