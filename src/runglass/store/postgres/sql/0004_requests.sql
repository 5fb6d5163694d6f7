-- The head of a paused run when its next segment was stored, which makes it one that can go on: it may have an owner, or
-- be in the queue. And why a run is to be cancelled by whoever has it.
ALTER TABLE run ADD COLUMN resume_head bigint NOT NULL DEFAULT -1;
ALTER TABLE run ADD COLUMN cancel_reason text COLLATE "C";

-- Appends of programs of the version before take only runs out of the queue that were pending or running.
CREATE FUNCTION leave_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM queue WHERE run_no = NEW.no;
  RETURN NULL;
END
$$;

CREATE TRIGGER run_leaves_queue AFTER UPDATE OF status ON run FOR EACH ROW
WHEN (OLD.status = 'paused' AND NEW.status <> 'paused') EXECUTE FUNCTION leave_queue();
